package proxy

import (
	"fmt"
	"strings"
)

// rule is one "METHOD /path" of an allow or deny list. A segment `*` stands for exactly one segment that is not empty, a final
// `**` for any rest, none included; everything else is compared byte for byte with the raw path after the route.
type rule struct {
	method   string // "*": any
	segments []string
	decoded  []string // segments, for who reads loosely: some characters can only be written encoded
	open     bool     // ended in **
}

func parseRules(texts []string) ([]rule, error) {
	rules := make([]rule, 0, len(texts))
	for _, text := range texts {
		method, path, ok := strings.Cut(text, " ")
		if !ok || method == "" || !strings.HasPrefix(path, "/") {
			return nil, fmt.Errorf("rule %q is not of the form METHOD /path", text)
		}
		r := rule{method: method, segments: strings.Split(path[1:], "/")}
		if last := len(r.segments) - 1; r.segments[last] == "**" {
			r.segments, r.open = r.segments[:last], true
		}
		for _, s := range r.segments {
			if strings.Contains(s, "*") && s != "*" {
				return nil, fmt.Errorf("rule %q: * stands for a whole segment, ** for the rest at the end", text)
			}
			r.decoded = append(r.decoded, unescape(nil, s))
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// allowedBy reports whether a rule matches the path as its bytes came.
func allowedBy(rules []rule, method, path string) bool {
	for i := range rules {
		if rules[i].matches(method, path, false) {
			return true
		}
	}
	return false
}

// deniedBy reports whether a rule matches any reading that an upstream could give the path: its bytes as they came, decoded
// once or twice, in other letter case, and with empty segments and what follows a semicolon left out. A rule that forbids must not be
// evaded by spelling.
func deniedBy(rules []rule, method, path string) bool {
	once := unescape(nil, path)
	twice := unescape(nil, once)
	for i := range rules {
		for _, reading := range [...]string{path, once, twice} {
			if rules[i].matches(method, reading, false) || rules[i].matches(method, reading, true) {
				return true
			}
		}
	}
	return false
}

// matches compares segment by segment. Loosely, letter case is folded, the rule may be encoded, empty segments of the path are
// skipped, and a segment's parameters need not be the rule's.
func (r *rule) matches(method, path string, loosely bool) bool {
	if r.method != "*" && r.method != method {
		return false
	}
	rest, more := strings.TrimPrefix(path, "/"), true
	for i, want := range r.segments {
		var got string
		for {
			if !more {
				return false
			}
			got, rest, more = strings.Cut(rest, "/")
			if !loosely || want == "" || withoutParameters(got) != "" {
				break
			}
		}
		if got != want && (want != "*" || got == "") && (!loosely || !readAs(got, want) && !readAs(got, r.decoded[i])) {
			return false
		}
	}
	for loosely && more {
		var segment string
		if segment, rest, more = strings.Cut(rest, "/"); withoutParameters(segment) != "" {
			return r.open
		}
	}
	return r.open || !more
}

// readAs reports whether an upstream could take a segment for the one that a rule names.
func readAs(got, want string) bool {
	return strings.EqualFold(got, want) || strings.EqualFold(withoutParameters(got), want)
}

// withoutParameters cuts a segment at its semicolon: some servers strip path parameters before they look.
func withoutParameters(segment string) string {
	bare, _, _ := strings.Cut(segment, ";")
	return bare
}
