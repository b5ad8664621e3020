package config

import (
	"errors"
	"regexp"
	"slices"
	"strings"
)

// template is text with placeholders, {entity_id} and {vars.NAME}.
type template []part

// part is literal text, or the name of a placeholder without its braces.
type part struct {
	text        string
	placeholder bool
}

var (
	placeholderPattern = upTo(len("vars.")+maxVarName, `^(entity_id|vars\.`+varName+`)$`)
	varPattern         = upTo(maxVarName, `^`+varName+`$`)
	// valuePattern keeps a value to its place: none of these bytes ends a host label's name, a path segment or a query
	// parameter, and with the first one it is no dot segment.
	valuePattern = upTo(253, `^[A-Za-z0-9][A-Za-z0-9._~-]*$`)
)

const (
	varName    = `[A-Za-z_][A-Za-z0-9_-]*`
	maxVarName = 64
)

// value is what a placeholder may stand for.
func value(s string) (string, error) {
	return matching(s, valuePattern, errors.New("must begin with a letter or digit and hold letters, digits, . _ ~ - alone, at most 253 in all"))
}

// parseTemplate reads text with placeholders. Braces cannot be escaped: nothing that is templated needs them.
func parseTemplate(s string) (template, error) {
	var t template
	for {
		before, rest, found := strings.Cut(s, "{")
		if strings.Contains(before, "}") {
			return nil, errors.New("has a } without a {")
		}
		if before != "" {
			t = append(t, part{text: before})
		}
		if !found {
			return t, nil
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed {
			return nil, errors.New("has a { without a }")
		}
		if !placeholderPattern.MatchString(name) {
			return nil, errors.New("has an unknown placeholder: there are {entity_id} and {vars.NAME}")
		}
		t = append(t, part{text: name, placeholder: true})
		s = after
	}
}

// templated is a parser of single-line text with placeholders.
func templated(s string) (string, error) {
	if _, err := parseTemplate(s); err != nil {
		return "", err
	}
	return line(s)
}

func (t template) placeholders() []string {
	var names []string
	for _, p := range t {
		if p.placeholder && !slices.Contains(names, p.text) {
			names = append(names, p.text)
		}
	}
	return names
}

// expand puts in the values; missing is the first placeholder without one.
func (t template) expand(values map[string]string) (text, missing string) {
	var b strings.Builder
	for _, p := range t {
		if !p.placeholder {
			b.WriteString(p.text)
			continue
		}
		v, ok := values[p.text]
		if !ok {
			return "", p.text
		}
		b.WriteString(v)
	}
	return b.String(), ""
}

var braces = regexp.MustCompile(`\{[^}]*\}`)

// sample puts an x for every placeholder of a template, or a piece of one, that has been parsed: x is no hexadecimal digit, so a
// placeholder cannot be half of an escape.
func sample(s string) string { return braces.ReplaceAllLiteralString(s, "x") }
