package e2e_test

import (
	"bytes"
	"crypto/tls"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// The words that begin a frame in a case's lines. The last frame of a case ends its stream.
const (
	frameHeaders      = "HEADERS"
	frameContinuation = "CONTINUATION" // of the header block before it
	frameData         = "DATA"         // the rest of the line is its payload
)

// frame is one frame of the stream 1.
type frame struct {
	kind    string
	payload []byte
}

// frames makes the frames of a case's lines: one line is one header field, as it stands.
func (c *corpus) frames(t *testing.T, one *corpusCase) []frame {
	t.Helper()
	var list []frame
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, line := range one.sent {
		kind, rest, _ := strings.Cut(line, " ")
		switch {
		case kind == frameHeaders, kind == frameContinuation:
			list = append(list, frame{kind: kind})
			continue
		case kind == frameData:
			list = append(list, frame{kind, []byte(unescapeLine(rest))})
			continue
		}
		fields := []string{line}
		if line == "{usual}" {
			fields = []string{":method: GET", ":scheme: https", ":authority: {proxy}", "x-bifrost-key: {key}", "x-org-id: acme"}
		}
		for _, field := range fields {
			end := strings.Index(field[1:], ":") + 1 // a pseudo-header begins with one
			require.Positive(t, end, field)
			f := hpack.HeaderField{Name: unescapeLine(field[:end]), Value: unescapeLine(c.fill(strings.TrimPrefix(field[end+1:], " ")))}
			require.NoError(t, enc.WriteField(f))
		}
		require.NotEmpty(t, list, "a case begins with a frame")
		last := &list[len(list)-1]
		last.payload = append(last.payload, block.Bytes()...)
		block.Reset()
	}
	return list
}

// sendFrames sends a case on a connection of its own, and tells how its stream ends and whether the connection does.
func (c *corpus) sendFrames(t *testing.T, one *corpusCase) []string {
	t.Helper()
	conn, err := tls.Dial("tcp", c.address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}) // the test's own
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(caseTime)))

	var out bytes.Buffer
	out.WriteString(http2.ClientPreface)
	fr := http2.NewFramer(&out, conn)
	fr.AllowIllegalWrites = true
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	require.NoError(t, fr.WriteSettings())
	list := c.frames(t, one)
	for i, f := range list {
		last, whole := i == len(list)-1, i == len(list)-1 || list[i+1].kind != frameContinuation
		switch f.kind {
		case frameHeaders:
			ends := last || !whole && !hasKind(list[i+1:], frameHeaders, frameData)
			err = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.payload, EndStream: ends, EndHeaders: whole})
		case frameContinuation:
			err = fr.WriteContinuation(1, whole, f.payload)
		case frameData:
			err = fr.WriteData(1, last, f.payload)
		}
		require.NoError(t, err)
	}
	require.NoError(t, fr.WritePing(false, [8]byte{1})) // the frames before it are read before it
	_, _ = conn.Write(out.Bytes())                      // the server may have ended it: reading tells
	return readStream(t, fr, len(one.replied) > 0, c.golden)
}

func hasKind(list []frame, kinds ...string) bool {
	for _, f := range list {
		for _, kind := range kinds {
			if f.kind == kind {
				return true
			}
		}
	}
	return false
}

// readStream reads until the stream or the connection has ended.
func readStream(t *testing.T, fr *http2.Framer, whole bool, golden func(string) string) []string {
	t.Helper()
	var lines []string
	var body strings.Builder
	end := func() []string {
		if whole && body.Len() > 0 {
			lines = append(lines, "", escapeLine(body.String()))
		}
		return lines
	}
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			requireNoTimeout(t, err, "no answer")
			return append(end(), "closed")
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			lines = append(lines, headersLines(f, whole, golden)...)
		case *http2.DataFrame:
			body.Write(f.Data())
		case *http2.RSTStreamFrame:
			return append(end(), "reset "+f.ErrCode.String())
		case *http2.GoAwayFrame:
			lines = append(lines, "goaway "+f.ErrCode.String())
		}
		if f.Header().StreamID == 1 && f.Header().Flags.Has(http2.FlagDataEndStream) {
			return end()
		}
	}
}

// headersLines tell an answer's headers as answerLines does.
func headersLines(f *http2.MetaHeadersFrame, whole bool, golden func(string) string) []string {
	status, code := f.PseudoValue("status"), ""
	var headers []string
	for _, field := range f.RegularFields() {
		switch {
		case field.Name == "x-bifrost-error":
			code = field.Value
		case field.Name != "date" && whole:
			headers = append(headers, golden(field.Name+": "+field.Value))
		}
	}
	if code != "" {
		return []string{status + " " + code}
	}
	slices.Sort(headers)
	if status == "" {
		status = "trailers"
	}
	return append([]string{status}, headers...)
}
