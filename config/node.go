package config

import (
	"fmt"
	"regexp"
	"slices"

	"go.yaml.in/yaml/v3"
)

// node is a value in the file and where it stands. Without a yaml.Node it is a key that was not given: reading it
// yields nothing and reports nothing.
type node struct {
	*reader
	yaml *yaml.Node
	path string
	line int // of the key, which is where a missing field would be added
}

func (n node) given() bool { return n.yaml != nil }

// problem reports a mistake in this value.
func (n node) problem(format string, args ...any) {
	n.reader.problem(n.line, n.path, fmt.Sprintf(format, args...))
}

// kinds are the words for what a value is.
var kinds = map[yaml.Kind]string{yaml.MappingNode: "a mapping", yaml.SequenceNode: "a list", yaml.ScalarNode: "a single value"}

// is tells whether the value is given and of the kind, and reports it if it is given and of another kind.
func (n node) is(kind yaml.Kind) bool {
	switch {
	case !n.given():
		return false
	case n.yaml.Kind == kind && n.yaml.ShortTag() != "!!null":
		return true
	case n.yaml.ShortTag() == "!!null":
		n.problem("has no value: give it one or remove the key")
	default:
		n.problem("must be %s, is %s", kinds[kind], kinds[n.yaml.Kind])
	}
	return false
}

// text returns a single value as it is written. Numbers and dates count as text; true, false and "" do not.
func (n node) text() (string, bool) {
	if !n.is(yaml.ScalarNode) {
		return "", false
	}
	switch n.yaml.ShortTag() {
	case "!!str", "!!int", "!!float", "!!timestamp":
	default:
		n.problem("must be text: put it in quotes")
		return "", false
	}
	if n.yaml.Value == "" {
		n.problem("has no value: give it one or remove the key")
		return "", false
	}
	return n.yaml.Value, true
}

// items returns the values of a list.
func (n node) items() []node {
	if !n.is(yaml.SequenceNode) {
		return nil
	}
	items := make([]node, len(n.yaml.Content))
	for i, y := range n.yaml.Content {
		items[i] = node{n.reader, follow(y), fmt.Sprintf("%s[%d]", n.path, i), y.Line}
	}
	return items
}

// set reads a single value into dst with parse, whose error is the message of the problem. It tells whether it did.
func set[T any](n node, dst *T, parse func(string) (T, error)) bool {
	text, ok := n.text()
	if !ok {
		return false
	}
	v, err := parse(text)
	if err != nil {
		n.problem("%v", err)
		return false
	}
	*dst = v
	return true
}

// setList reads a list into dst, item by item as set does. An empty list and an item that stands twice are problems.
func setList[T comparable](n node, dst *[]T, parse func(string) (T, error)) {
	if n.given() && n.yaml.Kind == yaml.SequenceNode && len(n.yaml.Content) == 0 {
		n.problem("is an empty list: list something or remove the key")
	}
	for _, item := range n.items() {
		var v T
		switch {
		case !set(item, &v, parse):
		case slices.Contains(*dst, v):
			item.problem("stands in this list twice: remove one")
		default:
			*dst = append(*dst, v)
		}
	}
}

// setBool reads true or false into dst.
func setBool(n node, dst *bool) {
	if !n.is(yaml.ScalarNode) {
		return
	}
	if n.yaml.ShortTag() != "!!bool" || n.yaml.Decode(dst) != nil {
		n.problem("must be true or false, without quotes")
	}
}

// object is a mapping. A key that was never asked for is unknown: see close.
type object struct {
	node
	keys   []string // in the order of the file
	values map[string]node
	nulls  map[string]bool
	known  []string
}

// object returns the mapping, empty if it is not given. It reports any other kind and keys that stand twice, and is false
// after another kind.
func (n node) object() (*object, bool) {
	o := &object{node: n, values: map[string]node{}, nulls: map[string]bool{}}
	if !n.given() {
		return o, true
	}
	if !n.is(yaml.MappingNode) {
		return o, false
	}
	for i := 0; i+1 < len(n.yaml.Content); i += 2 {
		o.add(n.yaml.Content[i], n.yaml.Content[i+1])
	}
	return o, true
}

func (o *object) add(key, value *yaml.Node) {
	key = follow(key)
	if key.Kind != yaml.ScalarNode {
		o.reader.problem(key.Line, o.path, "has a key that is not text")
		return
	}
	name := key.Value
	child := node{o.reader, follow(value), o.join(name), key.Line}
	if first, ok := o.values[name]; ok {
		o.reader.problem(key.Line, o.join(o.printable(name)), fmt.Sprintf("stands here twice, first on line %d: remove one", first.line))
		return
	}
	o.keys = append(o.keys, name)
	o.values[name] = child
	o.nulls[name] = child.yaml.ShortTag() == "!!null"
}

// at returns the value of a key, and makes the key known.
func (o *object) at(key string) node {
	if !slices.Contains(o.known, key) {
		o.known = append(o.known, key)
	}
	if n, ok := o.values[key]; ok {
		return n
	}
	return node{reader: o.reader, path: o.join(key), line: o.line}
}

// need returns the value of a key and reports its absence.
func (o *object) need(key string) node {
	n := o.at(key)
	if !n.given() {
		n.problem("is missing")
	}
	return n
}

// all returns the values of every key, whatever it is, in the order of the file.
func (o *object) all() map[string]node {
	o.known = append(o.known, o.keys...)
	return o.values
}

// close reports the keys that at was never asked for.
func (o *object) close() {
	for _, key := range o.keys {
		if slices.Contains(o.known, key) {
			continue
		}
		message := "is an unknown key: remove it"
		if key == "<<" {
			message = "is not supported: write the keys out"
		} else if near := nearest(key, o.known); near != "" {
			message = fmt.Sprintf("is an unknown key: did you mean %s?", near)
		}
		o.reader.problem(o.values[key].line, o.join(o.printable(key)), message)
	}
}

func (o *object) join(key string) string {
	if o.path == "" {
		return key
	}
	return o.path + "." + key
}

// follow returns what an alias stands for.
func follow(y *yaml.Node) *yaml.Node {
	if y.Kind == yaml.AliasNode {
		return y.Alias
	}
	return y
}

var plainKey = regexp.MustCompile(`^[A-Za-z0-9_@][A-Za-z0-9_.@-]{0,63}$`)

// printable returns a key that the file may hold by mistake as it may be printed. A key without a value is likely a value
// without its key, as in {id: "2026-11", c2VjcmV0}; it is printed only if it nearly is a known key.
func (o *object) printable(key string) string {
	if !plainKey.MatchString(key) || o.nulls[key] && nearest(key, o.known) == "" {
		return "?"
	}
	return key
}

// nearest returns the known word that key is probably a misspelling of, or nothing.
func nearest(key string, known []string) string {
	best, least := "", 1+min(3, len(key)/3)
	for _, word := range known {
		if d := distance(key, word); d < least {
			best, least = word, d
		}
	}
	return best
}

// distance counts the insertions, deletions and replacements that make b of a (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
