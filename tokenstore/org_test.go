package tokenstore_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func TestAnOrgIsValidAsItsPatternSays(t *testing.T) {
	pattern := regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	var names []string
	for c := range 256 {
		names = append(names, string([]byte{byte(c)}), "a"+string([]byte{byte(c)}), string([]byte{byte(c)})+"a")
	}
	names = append(names, "", "é", string(tokenstore.Global), strings.Repeat("a", 128), strings.Repeat("a", 129), "acme\n", "a b", "contoso.example_1-x")
	for _, name := range names {
		require.Equal(t, pattern.MatchString(name), tokenstore.Org(name).Valid(), "%q", name)
	}
}
