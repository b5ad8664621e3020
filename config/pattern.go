package config

import "regexp"

// pattern is what a value looks like that has at most so many bytes. The bound stands outside of the expression, which a repetition
// of hundreds would make hundreds of times as large for as long as the process lives.
type pattern struct {
	most int
	all  *regexp.Regexp
}

func upTo(most int, expr string) pattern { return pattern{most, regexp.MustCompile(expr)} }

// MatchString reports whether s is such a value.
func (p pattern) MatchString(s string) bool { return len(s) <= p.most && p.all.MatchString(s) }
