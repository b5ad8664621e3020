package config

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAPatternBoundsBytes(t *testing.T) {
	p := upTo(4, `^[a-z]*$`)
	require.True(t, p.MatchString(""))
	require.True(t, p.MatchString("abcd"))
	require.False(t, p.MatchString("abcde"))
	require.False(t, p.MatchString("abC"))
}

func TestNamesAreAsLongAsTheyMayBe(t *testing.T) {
	for kind, c := range map[string]struct {
		most   int
		accept func(string) bool
	}{
		"integration":                 {64, accepts(name)},
		"caller":                      {128, accepts(who)},
		"org":                         {128, accepts(org)},
		"header":                      {128, accepts(headerName)},
		"query":                       {64, queryName.MatchString},
		"value":                       {253, accepts(value)},
		"variable":                    {64, varPattern.MatchString},
		"placeholder":                 {64, func(s string) bool { return placeholderPattern.MatchString("vars." + s) }},
		"label":                       {63, func(s string) bool { return validHost(s + ".example.com") }},
		"host":                        {253, func(s string) bool { return validHost(dotted(s)) }},
		"san":                         {253, func(s string) bool { _, err := san("dns:" + dotted(s)); return err == nil }},
		"method":                      {32, func(s string) bool { _, err := method(strings.ToUpper(s)); return err == nil }},
		"variable of the environment": {64, func(s string) bool { return envCustom.MatchString(strings.ToUpper(s)) }},
		"secret":                      {512, sendable.MatchString},
		"key of the configuration":    {64, plainKey.MatchString},
	} {
		require.True(t, c.accept(strings.Repeat("a", c.most)), "%s of %d bytes", kind, c.most)
		require.False(t, c.accept(strings.Repeat("a", c.most+1)), "%s of %d bytes", kind, c.most+1)
	}
}

func accepts(parse func(string) (string, error)) func(string) bool {
	return func(s string) bool { _, err := parse(s); return err == nil }
}

// dotted makes labels of 50 bytes of a name, which stays as long.
func dotted(s string) string {
	b := []byte(s)
	for i := 50; i < len(b)-1; i += 51 {
		b[i] = '.'
	}
	return string(b)
}
