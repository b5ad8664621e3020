package e2e_test

import (
	"crypto/tls"
	"flag"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

var updateCorpus = flag.Bool("corpus.update", false, "have TestCorpus write what happens into testdata/corpus, for a person to read line by line")

const (
	sentinelPath = "/nothing-but-this" // of the request that shows what has not reached the upstream
	acmeKey      = "CANARY-acme-key"   // of a caller bound to acme
	narrowKey    = "CANARY-narrow-key" // of one with rules
)

// corpus is a running site and all that its cases' texts are filled in from.
type corpus struct {
	replica  *replica
	upstream *rawUpstream
	address  string // of the proxy listener
	client   *http.Client
	idp      *authflowtest.Provider
}

// TestCorpus replays what testdata/corpus has, byte by byte, and compares what the upstream sees and what is answered.
func TestCorpus(t *testing.T) {
	t.Parallel()
	idp := newProvider(t, authflowtest.Config{})
	upstream := newRawUpstream(t)
	s := newCorpusSite(t, idp, upstream)

	c := &corpus{upstream: upstream, idp: idp}
	c.start(s)
	for _, integration := range []string{"graph", "bare", "narrow", "socket", "hosted", "keyed", "labelled", "small"} {
		c.replica.adoptAt(integration, idp, "acme")
	}
	for _, org := range []string{"globex", "@global"} {
		c.replica.adoptAt("graph", idp, org)
	}
	c.replay(t, "http1", c.sendRaw)
	c.replay(t, "stop", c.sendRaw)
	require.Eventually(t, c.replica.hasEnded, patience, pollTime, "bifrost was told to stop")
	require.Zero(t, c.replica.cmd.ProcessState.ExitCode())

	writeCertificate(t, s.dir)
	s.replace("{listen: PROXY,", "{listen: PROXY, tls: {cert_file: "+filepath.Join(s.dir, "tls.crt")+", key_file: "+filepath.Join(s.dir, "tls.key")+"},")
	c.start(s)
	c.replica.proxy = "https://" + c.address
	c.replay(t, "http2", c.sendFrames)
}

// newCorpusSite returns a site whose integrations differ in one thing each.
func newCorpusSite(t *testing.T, idp *authflowtest.Provider, upstream *rawUpstream) *site {
	t.Helper()
	s := newSite(t, idp)
	s.env["ACME"], s.env["NARROW"] = acmeKey, narrowKey
	s.replace("{listen: PROXY}", "{listen: PROXY, drain_timeout: 1s}")
	s.replace("callers:", `callers:
  - {name: acme-jobs, key: {env: ACME}, orgs: [acme], integrations: ["*"]}
  - {name: narrow, key: {env: NARROW}, orgs: [acme, globex], integrations: [graph], allow: ["GET /v1.0/users/**", "POST /v1.0/users/*/sendMail"]}`)
	base := "http://" + upstream.address()
	s.replace("upstream: "+idp.BaseURL+"/api", "upstream: "+base+"/api\n    limits: {upstream_retry_after: false}") // each case stands alone
	_, graph, _ := strings.Cut(s.yaml, "  graph:\n")
	graph = strings.NewReplacer("    route: /graph\n", "", base+"/api", base).Replace(graph)
	for _, added := range []string{
		"bare:\n    route: /bare\n    fallback: none",
		"narrow:\n    route: /narrow\n    methods: [GET, POST, PROPFIND]\n    allow: [\"* /v1.0/**\", \"GET /beta/*/photo\"]\n    deny: [\"* /v1.0/$batch\", \"* /v1.0/admin/**\"]\n    only_orgs: [acme]",
		"socket:\n    route: /socket\n    websocket: true",
		"hosted:\n    route: /hosted\n    hosts: [api.corpus.test, \"ported.corpus.test:8443\"]",
		"keyed:\n    route: /keyed\n    inject: {query: access_token}",
		"labelled:\n    route: /labelled\n    inject: {header: x-api-key, format: \"Token {access_token}\"}\n    headers: {X-Tenant: ours, User-Agent: corpus/1}",
		"small:\n    route: /small/v1\n    max_body: 8\n    replay_body_limit: 4",
	} {
		s.yaml += "  " + added + "\n" + graph
	}
	return s
}

func (c *corpus) start(s *site) {
	c.replica = s.start()
	_, c.address, _ = strings.Cut(c.replica.proxy, "://")
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // the certificate is the test's own
	c.client = &http.Client{Transport: transport, Timeout: patience}
	c.replica.t.Cleanup(transport.CloseIdleConnections)
}

// replay sends every case of the files of a folder and compares, or writes down.
func (c *corpus) replay(t *testing.T, folder string, send func(*testing.T, *corpusCase) []string) {
	for _, file := range readCorpus(t, folder) {
		t.Run(filepath.Base(file.path), func(t *testing.T) {
			for _, one := range file.cases {
				t.Run(one.name, func(t *testing.T) {
					seen, got := c.try(t, one, send)
					if *updateCorpus {
						one.seen, one.got = seen, got
						return
					}
					require.Equal(t, strings.Join(one.seen, "\n"), strings.Join(seen, "\n"), "what the upstream sees")
					require.Equal(t, strings.Join(one.got, "\n"), strings.Join(got, "\n"), "what is answered")
				})
			}
			if *updateCorpus {
				require.NoError(t, file.write())
			}
		})
	}
}

// try sends one case. What has not come whole before a request that is sent afterwards does not come whole. How much comes of
// a request that is given up on the way is a question of time, and when too: those are not told.
func (c *corpus) try(t *testing.T, one *corpusCase, send func(*testing.T, *corpusCase) []string) (seen, got []string) {
	t.Helper()
	answer := answerPlain
	if one.replied != nil {
		answer = c.bytes(one.replied)
	}
	c.upstream.begin(answer)
	got = send(t, one)
	if one.then != thenStops {
		c.sendSentinel(t)
	}
	for _, q := range c.upstream.await(t, allEnded) {
		if q.isSentinel() || q.cut {
			continue
		}
		if len(seen) > 0 {
			seen = append(seen, "")
		}
		for _, line := range q.lines() {
			seen = append(seen, c.golden(line))
		}
	}
	return seen, got
}

func allEnded(requests []*rawRequest) bool {
	for _, q := range requests {
		if !q.ended {
			return false
		}
	}
	return true
}

func (c *corpus) sendSentinel(t *testing.T) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, c.replica.proxy+"/bare"+sentinelPath, nil)
	require.NoError(t, err)
	req.Header.Set("X-Bifrost-Key", acmeKey)
	res, err := c.client.Do(req)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusOK, res.StatusCode)
}

// fill stands for the words in braces.
func (c *corpus) fill(text string) string {
	return strings.NewReplacer("{proxy}", c.address, "{upstream}", c.upstream.address(), "{key}", callerKey, "{acme-key}", acmeKey, "{narrow-key}", narrowKey).Replace(text)
}

// bytes makes the bytes of a case's lines.
func (c *corpus) bytes(lines []string) string {
	var raw strings.Builder
	for _, line := range lines {
		switch {
		case line == "{usual}":
			raw.WriteString(c.fill("Host: {proxy}\r\nX-Bifrost-Key: {key}\r\nX-Org-ID: acme\r\n"))
		case line == answerClose, line == answerHold:
			raw.WriteString(line)
		case strings.HasSuffix(line, `\`) && !strings.HasSuffix(line, `\\`):
			raw.WriteString(unescapeLine(c.fill(strings.TrimSuffix(line, `\`))))
		default:
			raw.WriteString(unescapeLine(c.fill(line)) + "\r\n")
		}
	}
	return raw.String()
}

var (
	tokenPattern = regexp.MustCompile(`CANARY-at-[A-Z2-7]+`)
	idPattern    = regexp.MustCompile(`^((?i)X-Request-Id: )[A-Z2-7]{26}$`)
)

// golden replaces what differs from run to run by words in braces.
func (c *corpus) golden(line string) string {
	line = tokenPattern.ReplaceAllStringFunc(line, func(value string) string {
		token, _ := c.idp.Lookup(value) // none: the zero Token
		return "{" + token.User + "}"
	})
	line = idPattern.ReplaceAllString(line, "${1}{id}")
	return strings.NewReplacer(c.upstream.address(), "{upstream}", c.address, "{proxy}").Replace(line)
}
