package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// corpusFile is one file of testdata/corpus, whose README tells the notation.
type corpusFile struct {
	path     string
	preamble []string
	cases    []*corpusCase
}

// corpusCase is one request, or several on one connection, and what became of it. Lines are kept without their mark.
type corpusCase struct {
	name     string
	comments []string
	covers   string   // the behaviour of corpusBehaviours that it pins; empty: none of these
	sent     []string // > by the caller
	then     string   // ! what happens after that; empty: the caller waits for its answer
	replied  []string // << by the upstream; nil: 200 without a body
	seen     []string // >> at the upstream; nil: nothing
	got      []string // < by the caller
}

// The marks of the lines, longer ones first.
const (
	markSeen, markReplied = ">>", "<<"
	markSent, markGot     = ">", "<"
	markName, markThen    = "===", "!"
	markCovers            = "covers:"
)

// readCorpus reads the files of a folder, in the order of their names.
func readCorpus(t *testing.T, folder string) []*corpusFile {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", "corpus", folder, "*.txt"))
	require.NoError(t, err)
	require.NotEmpty(t, paths, folder)
	var files []*corpusFile
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		f := &corpusFile{path: path}
		for i, line := range strings.Split(strings.TrimRight(string(text), "\n"), "\n") {
			require.NoError(t, f.read(line), "%s:%d", path, i+1)
		}
		files = append(files, f)
	}
	return files
}

// read takes the file's next line.
func (f *corpusFile) read(line string) error {
	mark, text, _ := strings.Cut(line, " ")
	if mark == markName {
		f.cases = append(f.cases, &corpusCase{name: text})
		return nil
	}
	if len(f.cases) == 0 {
		f.preamble = append(f.preamble, line)
		return nil
	}
	c := f.cases[len(f.cases)-1]
	switch mark {
	case "":
	case "#":
		c.comments = append(c.comments, text)
	case markCovers:
		c.covers = text
	case markSent:
		c.sent = append(c.sent, text)
	case markThen:
		c.then = text
	case markReplied:
		c.replied = append(c.replied, text)
	case markSeen:
		c.seen = append(c.seen, text)
	case markGot:
		c.got = append(c.got, text)
	default:
		return fmt.Errorf("no such mark: %q", mark)
	}
	return nil
}

// write writes the file anew.
func (f *corpusFile) write() error {
	var out strings.Builder
	lines := func(mark string, texts ...string) {
		for _, text := range texts {
			out.WriteString(strings.TrimRight(mark+" "+text, " ") + "\n")
		}
	}
	out.WriteString(strings.TrimSpace(strings.Join(f.preamble, "\n")) + "\n")
	for _, c := range f.cases {
		out.WriteString("\n")
		lines(markName, c.name)
		lines("#", c.comments...)
		if c.covers != "" {
			lines(markCovers, c.covers)
		}
		lines(markSent, c.sent...)
		if c.then != "" {
			lines(markThen, c.then)
		}
		lines(markReplied, c.replied...)
		lines(markSeen, c.seen...)
		lines(markGot, c.got...)
	}
	return os.WriteFile(f.path, []byte(out.String()), 0o644)
}

// answers is how many answers the caller waits for: as many as are written down, else one.
func (c *corpusCase) answers() int {
	n := 0
	for _, line := range c.got {
		if len(line) >= 3 && line[0] >= '2' && line[0] <= '5' && line[1] >= '0' && line[1] <= '9' {
			n++
		}
	}
	return max(n, 1)
}

var (
	escapePattern = regexp.MustCompile(`\\(x[0-9a-f]{2}|[rntz\\])`)
	repeatPattern = regexp.MustCompile(`\{(.)\*([0-9]+)\}`)
)

// unescapeLine makes the bytes of a line's text.
func unescapeLine(text string) string {
	text = repeatPattern.ReplaceAllStringFunc(text, func(found string) string {
		part := repeatPattern.FindStringSubmatch(found)
		n, _ := strconv.Atoi(part[2]) // digits
		return strings.Repeat(part[1], n)
	})
	return escapePattern.ReplaceAllStringFunc(text, func(found string) string {
		switch found[1] {
		case 'x':
			b, _ := strconv.ParseUint(found[2:], 16, 8) // two digits
			return string([]byte{byte(b)})
		case 'r':
			return "\r"
		case 'n':
			return "\n"
		case 't':
			return "\t"
		case 'z':
			return "\x00"
		}
		return `\`
	})
}

// escapeLine is the other way: every byte is visible, and no blank stands at an end.
func escapeLine(raw string) string {
	var out strings.Builder
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		run := 1
		for i+run < len(raw) && raw[i+run] == c {
			run++
		}
		switch {
		case run > 60 && c > ' ' && c < 0x7f:
			fmt.Fprintf(&out, "{%c*%d}", c, run)
			i += run - 1
		case c == '\\':
			out.WriteString(`\\`)
		case c == '\r':
			out.WriteString(`\r`)
		case c == '\n':
			out.WriteString(`\n`)
		case c == '\t':
			out.WriteString(`\t`)
		case c < ' ', c >= 0x7f, c == ' ' && i == len(raw)-1:
			fmt.Fprintf(&out, `\x%02x`, c)
		default:
			out.WriteByte(c)
		}
	}
	return out.String()
}
