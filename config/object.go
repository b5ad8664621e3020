package config

import (
	"fmt"
	"iter"
	"maps"
	"slices"

	"gopkg.in/yaml.v3"
)

// object is a mapping. A key that was never asked for is unknown: see close.
type object struct {
	node
	keys   []string // in the order of the file
	values map[string]node
	known  map[string]bool
}

// object returns the mapping, empty if it is not given. It reports any other kind and keys that stand twice, and is false
// after another kind.
func (n node) object() (*object, bool) {
	o := &object{node: n, values: map[string]node{}, known: map[string]bool{}}
	if !n.given() {
		return o, true
	}
	if !n.is(yaml.MappingNode) {
		return o, false
	}
	for i := 0; i+1 < len(n.yaml.Content); i += 2 {
		o.add(follow(n.yaml.Content[i]), follow(n.yaml.Content[i+1]))
	}
	return o, true
}

func (o *object) add(key, value *yaml.Node) {
	if key.Kind != yaml.ScalarNode {
		o.reader.problem(key.Line, o.path, "has a key that is not text")
		return
	}
	child := node{o.reader, value, o.join(key.Value), key.Line}
	if first, twice := o.values[key.Value]; twice {
		child.problem("stands here twice, first on line %d: remove one", first.line)
		return
	}
	o.keys = append(o.keys, key.Value)
	o.values[key.Value] = child
}

// at returns the value of a key, and makes the key known.
func (o *object) at(key string) node {
	o.known[key] = true
	if n, ok := o.values[key]; ok {
		return n
	}
	return node{reader: o.reader, path: o.join(key), line: o.line}
}

// need returns the value of a key and reports its absence.
func (o *object) need(key string) node {
	n := o.at(key)
	if !n.given() {
		n.problem("is missing: add it")
	}
	return n
}

// all yields every key, whatever it is, in the order of the file, and makes them known.
func (o *object) all() iter.Seq2[string, node] {
	return func(yield func(string, node) bool) {
		for _, key := range o.keys {
			if !yield(key, o.at(key)) {
				return
			}
		}
	}
}

// close reports the keys that nobody asked for. A key without a value is likely a value without its key, perhaps a secret, as
// in {id: "2026-11", c2VjcmV0}: its path is printed only if it nearly is a known key.
func (o *object) close() {
	for _, key := range o.keys {
		if o.known[key] {
			continue
		}
		n, near := o.values[key], nearest(key, slices.Sorted(maps.Keys(o.known)))
		switch {
		case key == "<<":
			n.problem("is not supported: write the keys out")
		case near != "":
			n.problem("is an unknown key: did you mean %s?", near)
		case n.yaml.ShortTag() == "!!null":
			o.reader.problem(n.line, o.join(""), "is an unknown key: remove it")
		default:
			n.problem("is an unknown key: remove it")
		}
	}
}

// plainKey is a key that may be printed. It cannot break a line.
var plainKey = upTo(64, `^[A-Za-z0-9_@<][A-Za-z0-9_.@<-]*$`)

func (o *object) join(key string) string {
	if !plainKey.MatchString(key) {
		key = "?"
	}
	if o.path == "" {
		return key
	}
	return fmt.Sprintf("%s.%s", o.path, key)
}
