package config

import (
	"fmt"
	"slices"

	"gopkg.in/yaml.v3"
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

// fullItems returns the values of a list, and reports an empty one.
func (n node) fullItems() []node {
	if n.given() && n.yaml.Kind == yaml.SequenceNode && !n.lists() {
		n.problem("is an empty list: list something or remove the key")
	}
	return n.items()
}

// lists tells whether the file lists something there, be it right or wrong.
func (n node) lists() bool {
	return n.given() && n.yaml.Kind == yaml.SequenceNode && len(n.yaml.Content) > 0
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
	for _, item := range n.fullItems() {
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

// follow returns what an alias stands for.
func follow(y *yaml.Node) *yaml.Node {
	if y.Kind == yaml.AliasNode {
		return y.Alias
	}
	return y
}
