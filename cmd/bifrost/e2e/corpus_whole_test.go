package e2e_test

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// corpusBehaviours are what net/http and httputil do of themselves and a proxy with credentials must not do, or must do
// knowingly. Each has at least one case.
var corpusBehaviours = []string{
	"a header named by Connection", "an org sent twice", "an alias of our names", "an org that is no plain name", "blanks around an org",
	"bare line feeds and folded lines", "length and chunked together", "malformed framing", "dot segments in another spelling",
	"paths that a mux would redirect", "an encoded slash at the route's border", "a fragment", "absolute form", "methods",
	"OPTIONS *", "an OData query", "a query with a malformed escape", "request trailers", "informational answers", "response trailers",
	"another protocol to upgrade to", "a tunnel when bifrost stops", "a body over the limit", "compression left to the ends",
	"an answer cut short", "a caller who leaves", "HTTP/2 requests that HTTP/1 has no words for", "HTTP/2 requests that the server refuses",
	"forwarding headers",
}

// TestTheCorpusIsWhole counts the cases, and looks at what they say whatever the binary does.
func TestTheCorpusIsWhole(t *testing.T) {
	covered, names := map[string]bool{}, map[string]bool{}
	for _, folder := range []string{"http1", "stop", "http2"} {
		for _, file := range readCorpus(t, folder) {
			require.NotEmpty(t, file.cases, file.path)
			require.NotEmpty(t, file.preamble, "%s says what it is about", file.path)
			for _, one := range file.cases {
				require.NotEmpty(t, one.sent, one.name)
				require.NotEmpty(t, one.got, one.name)
				require.False(t, names[one.name], "two cases are called: %s", one.name)
				names[one.name], covered[one.covers] = true, true
				one.requireSound(t)
			}
		}
	}
	require.GreaterOrEqual(t, len(names), 300)
	delete(covered, "") // of cases that cover none
	require.ElementsMatch(t, corpusBehaviours, slices.Collect(maps.Keys(covered)))
}

// corpusBases are the integrations' routes and the base paths of their upstreams.
var corpusBases = map[string]string{
	"/graph": "/api", "/bare": "", "/narrow": "", "/socket": "", "/hosted": "", "/keyed": "", "/labelled": "", "/small/v1": "",
}

var absoluteForm = regexp.MustCompile(`^(?i:https?)://[^/?]*`)

// requireSound requires that a whole request got past bifrost with the target as it came, and without a caller's secret.
func (c *corpusCase) requireSound(t *testing.T) {
	t.Helper()
	for _, line := range slices.Concat(c.seen, c.got) {
		require.NotContains(t, line, "CANARY", c.name)
	}
	if len(c.seen) == 0 {
		return
	}
	method, target := c.asked()
	for route, base := range corpusBases {
		after, ok := strings.CutPrefix(target, route)
		if ok && (after == "" || strings.ContainsAny(after[:1], "/?")) && !strings.Contains(strings.Join(c.sent, " "), "api.corpus.test") {
			target = base + after
			break
		}
	}
	if target == "" || target[0] == '?' {
		target = "/" + target
	}
	if c.seen[0] == method+" "+target+" HTTP/1.1" || c.answers() > 1 {
		return // of several requests the first may have been refused
	}
	path, _, _ := strings.Cut(target, "?") // a credential changes the query
	require.Contains(t, c.seen[0], "access_token={acme}", "%s: the upstream sees another target", c.name)
	require.True(t, strings.HasPrefix(c.seen[0], method+" "+path+"?"), "%s: the upstream sees another path", c.name)
}

// asked returns the method and the target of the first request.
func (c *corpusCase) asked() (method, target string) {
	method, rest, _ := strings.Cut(c.sent[0], " ")
	target, _, _ = strings.Cut(rest, " HTTP/")
	if method == frameHeaders {
		method = "GET" // of {usual}
		for _, line := range c.sent {
			if value, ok := strings.CutPrefix(line, ":method: "); ok {
				method = value
			}
			if value, ok := strings.CutPrefix(line, ":path: "); ok {
				target = value
			}
		}
	}
	return method, absoluteForm.ReplaceAllString(target, "")
}
