package config

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// reader reads one file: it collects the problems, and the files that the configuration came from.
type reader struct {
	file          string
	dir           string // relative paths in the file start here
	env           func(string) (string, bool)
	checkRedisURL func(url string, allowInsecure bool) error
	checkAddress  func(ip netip.Addr, allowPrivate []netip.Prefix) error
	problems      Problems
	files         []string
}

func (r *reader) problem(line int, path, message string) {
	r.problems = append(r.problems, Problem{File: r.file, Line: max(line, 1), Path: path, Message: message})
}

// root returns the mapping at the top of the file, or false after reporting why there is none.
func (r *reader) root() (node, bool) {
	text, err := os.ReadFile(r.file)
	if err != nil {
		r.problem(1, "", "cannot be read: "+cause(err))
		return node{}, false
	}
	doc, second, err := parse(text)
	switch {
	case err != nil:
		r.syntax(err, text)
		return node{}, false
	case doc == nil || doc.Content[0].ShortTag() == "!!null":
		r.problem(1, "", "is empty: at least one integration is needed")
		return node{}, false
	case second > 0:
		r.problem(second, "", "a second document begins here: one file is one document, remove the line ---")
	}
	return node{reader: r, yaml: follow(doc.Content[0]), line: 1}, true
}

// errPanic stands for a panic of the YAML parser, which is known to have had some on hostile input.
var errPanic = errors.New("yaml: unknown problem")

// parse returns the first document, nil if there is none, and the line of the second, zero if there is none.
func parse(text []byte) (doc *yaml.Node, second int, err error) {
	defer func() {
		if recover() != nil {
			doc, err = nil, errPanic
		}
	}()
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var first, next yaml.Node
	if err := decoder.Decode(&first); err != nil {
		return nil, 0, unlessEOF(err)
	}
	if err := decoder.Decode(&next); err != nil {
		return &first, 0, unlessEOF(err)
	}
	return &first, max(next.Line, 1), nil
}

func unlessEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

var syntaxError = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// syntax reports an error of the YAML parser. Its texts are constant but for one, which has the name of an unknown anchor: an
// unquoted secret that begins with * reads as one.
func (r *reader) syntax(err error, text []byte) {
	from, message := 0, "unknown problem"
	if m := syntaxError.FindStringSubmatch(err.Error()); m != nil {
		from, _ = strconv.Atoi(m[1]) // zero if it has none
		message = m[2]
	}
	if strings.HasPrefix(message, "unknown anchor") {
		message = "an alias (*) whose anchor (&) does not stand before it; put text that begins with * in quotes"
	}
	r.problem(syntaxLine(text, from), "", "is not YAML: "+message)
}

// syntaxLine returns the line that makes text no YAML: the one after the longest beginning that is some. The parser's own
// line is where it noticed, or where the construct begins, or one before that: a long file is searched from there.
func syntaxLine(text []byte, from int) int {
	search := longSearch
	if from--; from < 0 || bytes.Count(text, []byte("\n")) < shortFile {
		from, search = 0, shortFile
	}
	found, read, length := from, 0, 0
	for line := range bytes.Lines(text) {
		read++
		length += len(line)
		if read <= from || read > from+search {
			continue
		}
		if _, _, err := parse(text[:length]); err == nil {
			found = read
		}
	}
	return found + 1
}

// Every line of a short file is tried; in a long one, where each try takes a while, a few.
const (
	shortFile  = 300
	longSearch = 5
)

// cause returns what the operating system said, without the path: a secret may stand where a path is expected.
func cause(err error) string {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err.Error()
	}
	return "unknown error"
}
