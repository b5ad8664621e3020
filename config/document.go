package config

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// reader reads one file: it collects the problems, and the files that the configuration came from.
type reader struct {
	file     string
	dir      string // relative paths in the file start here
	env      func(string) (string, bool)
	problems Problems
	files    []string
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
	doc, err := r.parse(text)
	if err != nil {
		r.syntax(err, text)
		return node{}, false
	}
	if doc == nil || doc.Content[0].ShortTag() == "!!null" {
		r.problem(1, "", "is empty: at least one integration is needed")
		return node{}, false
	}
	return node{reader: r, yaml: doc.Content[0], line: 1}, true
}

// errPanic stands for a panic of the YAML parser, which is known to have had some on hostile input.
var errPanic = errors.New("yaml: is not YAML")

// parse returns the first document, or nil if there is none, and reports any other.
func (r *reader) parse(text []byte) (doc *yaml.Node, err error) {
	defer func() {
		if recover() != nil {
			doc, err = nil, errPanic
		}
	}()
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var first, second yaml.Node
	if err := decoder.Decode(&first); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	switch err := decoder.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		return nil, err
	default:
		r.problem(second.Line, "", "a second document begins here: one file is one document, remove the line ---")
	}
	return &first, nil
}

var (
	syntaxError  = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)
	unknownAlias = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)
)

// syntax reports an error of the YAML parser. Its texts are constant but for two, which are replaced: one holds a value, the
// other the name of an unknown anchor, and an unquoted secret that begins with * reads as one.
func (r *reader) syntax(err error, text []byte) {
	line, message := 1, "is not YAML"
	if m := syntaxError.FindStringSubmatch(err.Error()); m != nil {
		line, _ = strconv.Atoi(m[1]) // no number: reported on line 1
		message = "is not YAML: " + m[2]
		if strings.Contains(m[2], "`") { // cannot decode !!str `the value` as a !!int
			message = "is not YAML: a value does not fit its ! tag"
		}
		if alias := unknownAlias.FindStringSubmatch(m[2]); alias != nil {
			before, _, _ := bytes.Cut(text, []byte("*"+alias[1]))
			line = 1 + bytes.Count(before, []byte("\n"))
			message = "is not YAML: an alias (*) whose anchor (&) does not stand before it; put text that begins with * in quotes"
		}
	}
	r.problem(line, "", strings.TrimSpace(message))
}

// cause returns what the operating system said, without the path: a secret may stand where a path is expected.
func cause(err error) string {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err.Error()
	}
	return "unknown error"
}
