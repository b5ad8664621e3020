package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

const viewerToken = "CANARY-viewer-token"

// told is what a line of the audit log says, without what differs from day to day.
type told struct{ Action, Actor, Integration, Org, Outcome, Detail string }

// auditLine is a line as it stands in the file. There are no other members.
type auditLine struct {
	told
	Link      string
	Time      time.Time
	RequestID string `json:"request_id"`
	Address   string
}

// auditDay is a site whose actions are written down, its replicas, which take turns, and what they shall have told.
type auditDay struct {
	canaries // the secrets on the way
	turns    []*replica
	jar      http.CookieJar // the operator's browser
	deny     bool           // the provider's user says no
	want     []told
}

// TestTheAuditLogOfADayIsComplete does everything that is audited once, and compares the lines one by one.
func TestTheAuditLogOfADayIsComplete(t *testing.T) {
	t.Run("file", func(t *testing.T) {
		d := newAuditDay(t, nil, 1)
		d.spend()
		d.expect(told{Action: "backup", Actor: "ops", Outcome: "ok"})
		require.Equal(t, http.StatusOK, d.turn().api(http.MethodGet, "/backup", "").Status)
		d.close()
		for _, command := range [][]string{{"backup", filepath.Join(t.TempDir(), "copy")}, {"rekey"}} {
			d.command(command...)
			d.expect(told{Action: command[0], Actor: "bifrost", Outcome: "ok"})
		}
		d.compare()
		d.turns = []*replica{d.site.start()}
		d.expect(told{Action: "start", Actor: "bifrost", Outcome: "ok"})
		d.compare()
		require.Equal(t, d.past("acme"), d.pastAt(d.turn(), "acme"), "it outlives a restart")
	})
	t.Run("two replicas on Redis", func(t *testing.T) {
		d := newAuditDay(t, storetest.StartRedis(t), 2)
		d.spend()
		d.close()
		d.compare()
	})
}

func newAuditDay(t *testing.T, server *storetest.RedisServer, replicas int) *auditDay {
	t.Helper()
	d := &auditDay{canaries: canaries{secrets: map[string]string{}, places: map[string]string{}}}
	var idp *authflowtest.Provider
	idp = newProvider(t, authflowtest.Config{Refresh: authflowtest.OneTime, IDToken: true, Consent: func(w http.ResponseWriter, r *http.Request) (string, bool) {
		if d.deny {
			idp.Deny(w, r, "access_denied")
		}
		return r.Header.Get(orgOfBrowser), !d.deny
	}})
	s := newSite(t, idp)
	s.env["VIEWER"], s.env["NEXT"] = viewerToken, tokenstore.NewKey()
	s.replace("token: {env: OPERATOR}}\n", "token: {env: OPERATOR}}\n    - {name: visitor, token: {env: VIEWER}, role: viewer}\n")
	s.yaml += "audit: {file: " + s.dir + "/audit.log}\n"
	if server != nil {
		s.onRedis(server.URL)
	}
	for range replicas {
		d.turns = append(d.turns, s.start())
		d.expect(told{Action: "start", Actor: "bifrost", Outcome: "ok"})
	}
	d.replica = d.turns[0]
	d.jar, _ = cookiejar.New(nil) // fails never
	return d
}

// turn returns the replica whose turn it is.
func (d *auditDay) turn() *replica {
	d.replica = d.turns[0]
	d.turns = append(d.turns[1:], d.turns[0])
	return d.replica
}

func (d *auditDay) expect(lines ...told) { d.want = append(d.want, lines...) }

// atGraph is what is told of an org's connection at graph, by ops.
func atGraph(action, org, outcome string) told {
	return told{Action: action, Actor: "ops", Integration: "graph", Org: org, Outcome: outcome}
}

// screen sends a form of the screen, or shows one, in the operator's browser.
func (d *auditDay) screen(method, path string, fields url.Values) answer {
	d.t.Helper()
	req := d.turn().request(method, d.auth+"/integrations"+path, fields.Encode())
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	req.Header.Set("X-Forwarded-For", "203.0.113.9")
	for _, c := range d.jar.Cookies(req.URL) { // cookies know no port: it is one browser for all replicas
		req.AddCookie(c)
	}
	ans := d.see(path, d.send(req))
	d.jar.SetCookies(req.URL, (&http.Response{Header: ans.Header}).Cookies())
	return ans
}

// walk goes from a connect link to the end, and returns the last page. Each step is another replica's.
func (d *auditDay) walk(link, org string) answer {
	d.t.Helper()
	jar, _ := cookiejar.New(nil)
	address, method := link, http.MethodGet
	for step := range 10 {
		to, err := url.Parse(address)
		require.NoError(d.t, err)
		for _, secret := range []string{"ticket", "state", "code"} {
			if value := to.Query().Get(secret); value != "" {
				d.secrets[fmt.Sprint(secret, " ", len(d.secrets))] = value
			}
		}
		if strings.HasPrefix(to.Path, "/oauth/") {
			to.Host = strings.TrimPrefix(d.turn().auth, "http://")
		}
		req := d.request(method, to.String(), "")
		req.Header.Set(orgOfBrowser, org)
		req.Header.Set("Sec-Fetch-Site", "same-origin")
		for _, c := range jar.Cookies(req.URL) {
			req.AddCookie(c)
		}
		page := d.send(req)
		jar.SetCookies(req.URL, (&http.Response{Header: page.Header}).Cookies())
		switch location := page.Header.Get("Location"); {
		case page.Status == http.StatusSeeOther || page.Status == http.StatusFound:
			next, err := req.URL.Parse(location)
			require.NoError(d.t, err)
			address, method = next.String(), http.MethodGet
		case step == 0:
			method = http.MethodPost
		default:
			return page
		}
	}
	require.Fail(d.t, "the consent does not end")
	return answer{}
}

// link makes a connect link by the API.
func (d *auditDay) link(org string) string {
	d.t.Helper()
	ans := d.turn().api(http.MethodPost, connectionPath(org)+"/connect-link", `{}`)
	require.Equal(d.t, http.StatusOK, ans.Status, ans.Body)
	d.expect(atGraph("link_made", org, "ok"))
	var link struct{ URL string }
	require.NoError(d.t, json.Unmarshal([]byte(ans.Body), &link))
	return link.URL
}

// spend is the day.
func (d *auditDay) spend() {
	d.signIns()
	d.connects()
	d.others()
	d.upkeep()
	d.strangers()
	d.reloads()
	d.history()
	require.Equal(d.t, http.StatusSeeOther, d.screen(http.MethodPost, "/sign-out", nil).Status)
	d.expect(told{Action: "sign_out", Actor: "ops", Outcome: "ok"})
	d.compare()
}

func (d *auditDay) signIns() {
	nobody := told{Action: "sign_in_failed", Actor: "anonymous", Outcome: "operator_unauthenticated"}
	require.Equal(d.t, http.StatusUnauthorized, d.screen(http.MethodPost, "/sign-in", url.Values{"token": {"CANARY-wrong"}}).Status)
	req := d.turn().request(http.MethodGet, d.auth+"/api/v1/integrations", "")
	req.Header.Set("Authorization", "Bearer CANARY-wrong")
	require.Equal(d.t, http.StatusUnauthorized, d.send(req).Status)
	require.Equal(d.t, http.StatusSeeOther, d.screen(http.MethodPost, "/sign-in", url.Values{"token": {operatorToken}}).Status)
	d.expect(nobody, nobody, told{Action: "sign_in", Actor: "ops", Outcome: "ok"})
	d.compare()
}

func (d *auditDay) connects() {
	button := d.screen(http.MethodPost, "/graph/connect", url.Values{"org": {"acme"}})
	require.Equal(d.t, http.StatusSeeOther, button.Status)
	require.Equal(d.t, http.StatusOK, d.walk(button.Header.Get("Location"), "acme").Status)
	d.expect(atGraph("link_made", "acme", "ok"), atGraph("connect", "acme", "ok"))

	require.Equal(d.t, http.StatusOK, d.walk(d.link("globex"), "globex").Status)
	d.expect(atGraph("connect", "globex", "ok"))
	require.Equal(d.t, http.StatusOK, d.walk(d.link("acme"), "acme").Status)
	d.expect(atGraph("reconnect", "acme", "ok"))

	d.deny = true
	require.Equal(d.t, http.StatusForbidden, d.walk(d.link("acme"), "acme").Status)
	d.expect(atGraph("consent_denied", "acme", "access_denied"))
	d.deny = false

	link := d.link("initech")
	d.site.idp.Misbehave(authflowtest.OAuthError(http.StatusBadRequest, "invalid_grant"))
	require.Equal(d.t, http.StatusBadGateway, d.walk(link, "initech").Status)
	failed := atGraph("connect_failed", "initech", "exchange_failed")
	failed.Detail = "invalid_grant"
	d.expect(failed)
	d.compare()
}

// others consent to a connection that is another account's, and an operator decides; links are taken back.
func (d *auditDay) others() {
	for action, word := range map[string]string{"account_rejected": "/reject", "account_confirmed": "/confirm"} {
		require.Equal(d.t, http.StatusOK, d.walk(d.link("globex"), "CANARY-user-"+word[1:]).Status)
		require.Equal(d.t, http.StatusOK, d.turn().api(http.MethodPost, connectionPath("globex")+word, "").Status)
		d.expect(atGraph("account_pending", "globex", "ok"), atGraph(action, "globex", "ok"))
	}
	d.link("initech")
	d.link("initech")
	var open struct{ Links []struct{ ID string } }
	require.NoError(d.t, json.Unmarshal([]byte(d.turn().api(http.MethodGet, connectionPath("initech")+"/connect-links", "").Body), &open))
	require.NotEmpty(d.t, open.Links)
	for _, path := range []string{"/connect-links/" + open.Links[0].ID, "/connect-links"} {
		require.Equal(d.t, http.StatusNoContent, d.turn().api(http.MethodDelete, connectionPath("initech")+path, "").Status)
		d.expect(atGraph("link_revoked", "initech", "ok"))
	}
	d.compare()
}

func (d *auditDay) upkeep() {
	require.Equal(d.t, http.StatusSeeOther, d.screen(http.MethodPost, "/graph/refresh", url.Values{"org": {"acme"}}).Status)
	d.expect(atGraph("refresh", "acme", "ok"))
	d.site.idp.Misbehave(authflowtest.OAuthError(http.StatusServiceUnavailable, "CANARY_code"))
	require.Equal(d.t, http.StatusServiceUnavailable, d.turn().api(http.MethodPost, connectionPath("acme")+"/refresh", "").Status)
	d.expect(atGraph("refresh", "acme", "idp_unavailable"))

	d.turn().adopt("umbrella")
	refused := d.turn().api(http.MethodPut, connectionPath("umbrella")+"/grant", `{"refresh_token":"CANARY-unknown-refresh"}`)
	require.Equal(d.t, http.StatusUnprocessableEntity, refused.Status)
	d.expect(atGraph("import", "umbrella", "ok"), atGraph("import", "umbrella", "grant_refused"))

	require.Equal(d.t, http.StatusNoContent, d.turn().api(http.MethodDelete, connectionPath("globex"), "").Status)
	require.Equal(d.t, http.StatusSeeOther, d.screen(http.MethodPost, "/graph/disconnect", url.Values{"org": {"acme"}}).Status)
	require.Equal(d.t, http.StatusOK, d.turn().api(http.MethodPost, "/rekey", "").Status)
	d.expect(atGraph("disconnect", "globex", "ok"), atGraph("disconnect", "acme", "ok"), told{Action: "rekey", Actor: "ops", Outcome: "ok"})
	d.compare()
}

// strangers do what they may not.
func (d *auditDay) strangers() {
	refused := d.turn().send(d.request(http.MethodGet, d.auth+"/oauth/callback/graph?code=CANARY-code&state=CANARY-state", ""))
	require.Equal(d.t, http.StatusBadRequest, refused.Status)
	d.expect(told{Action: "connect_refused", Actor: "anonymous", Integration: "graph", Outcome: "refused", Detail: "no cookie"})
	req := d.turn().request(http.MethodPost, d.auth+"/api/v1"+connectionPath("acme")+"/refresh", "")
	req.Header.Set("Authorization", "Bearer "+viewerToken)
	require.Equal(d.t, http.StatusForbidden, d.send(req).Status)
	d.expect(told{
		Action: "forbidden", Actor: "visitor", Integration: "graph", Org: "acme", Outcome: "operator_forbidden",
		Detail: "no right to POST /api/v1/integrations/{name}/connections/{org}/refresh",
	})
	d.compare()
}

// reloads brings a changed configuration into force at the first replica, and a bad one not.
func (d *auditDay) reloads() {
	file := filepath.Join(d.site.dir, "bifrost-1.yaml")
	text, err := os.ReadFile(file)
	require.NoError(d.t, err)
	changed, done := told{Action: "keys_changed", Actor: "bifrost", Outcome: "ok"}, told{Action: "reload", Actor: "bifrost", Outcome: "ok"}
	for _, step := range []struct {
		text string
		want []told
	}{
		{string(text) + "log: {level: debug}\n", []told{done}},
		{strings.Replace(string(text), "{id: k1, env: KEY}", "{id: k1, env: KEY}\n  - {id: k2, env: NEXT}", 1), []told{changed, done}},
		{string(text) + "CANARY: x\n", []told{{Action: "reload_failed", Actor: "bifrost", Outcome: "refused"}}},
		{string(text), []told{changed, done}},
	} {
		require.NoError(d.t, os.WriteFile(file+".new", []byte(step.text), 0o600))
		require.NoError(d.t, os.Rename(file+".new", file))
		d.expect(step.want...)
		require.Eventually(d.t, func() bool { return len(d.lines()) >= len(d.want) }, patience, pollTime)
		d.compare()
	}
}

// history is what was told of acme, newest first, whichever replica is asked, and on the page too.
func (d *auditDay) history() {
	want := d.past("acme")
	for range d.turns {
		require.Equal(d.t, want, d.pastAt(d.turn(), "acme"))
		page := d.screen(http.MethodGet, "/graph/history?org=acme", nil)
		require.Equal(d.t, http.StatusOK, page.Status)
		require.Equal(d.t, len(want), strings.Count(page.Body, "<tr>")-1)
		require.NotContains(d.t, page.Body, "CANARY")
	}
}

// past is what was told of what was done with an org's connection, newest first.
func (d *auditDay) past(org string) (past []told) {
	for _, line := range d.want {
		if line.Org == org && line.Action != "forbidden" {
			past = append([]told{line}, past...)
		}
	}
	return past
}

// pastAt is what a replica's API tells of it.
func (d *auditDay) pastAt(r *replica, org string) []told {
	d.t.Helper()
	ans := r.api(http.MethodGet, connectionPath(org)+"/history", "")
	require.Equal(d.t, http.StatusOK, ans.Status, ans.Body)
	require.NotContains(d.t, ans.Body, "CANARY")
	var seen struct{ Events []told }
	require.NoError(d.t, json.Unmarshal([]byte(ans.Body), &seen))
	return seen.Events
}

// close ends the day, the last replica first.
func (d *auditDay) close() {
	for range d.turns {
		require.NoError(d.t, d.turn().cmd.Process.Signal(syscall.SIGTERM))
		require.Eventually(d.t, d.hasEnded, patience, pollTime)
		d.expect(told{Action: "stop", Actor: "bifrost", Outcome: "ok"})
	}
}

// command runs a command that works without a serve.
func (d *auditDay) command(args ...string) {
	d.t.Helper()
	binary, err := d.site.binary()
	require.NoError(d.t, err)
	cmd := exec.Command(binary, append([]string{args[0], "-config", filepath.Join(d.site.dir, "bifrost-1.yaml")}, args[1:]...)...)
	cmd.Env = os.Environ()
	for name, value := range d.site.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	out, err := cmd.CombinedOutput()
	require.NoError(d.t, err, string(out))
}

// lines reads the audit log. Every line is whole and has nothing beside what it may have.
func (d *auditDay) lines() (lines []auditLine) {
	d.t.Helper()
	text, err := os.ReadFile(filepath.Join(d.site.dir, "audit.log"))
	require.NoError(d.t, err)
	d.places["audit log"] = string(text)
	for line := range strings.Lines(string(text)) {
		var l auditLine
		decoder := json.NewDecoder(strings.NewReader(line))
		decoder.DisallowUnknownFields()
		require.NoError(d.t, decoder.Decode(&l), line)
		lines = append(lines, l)
	}
	return lines
}

// compare requires that exactly what was expected so far has been told, in order, by its time, and no secret.
func (d *auditDay) compare() {
	d.t.Helper()
	var got []told
	for _, line := range d.lines() {
		got = append(got, line.told)
		require.WithinDuration(d.t, time.Now(), line.Time, 10*time.Minute)
		person := line.Actor != "bifrost"
		require.Equal(d.t, person, line.Address == "127.0.0.1", "%v", line)
		consent := strings.HasPrefix(line.Action, "con") || line.Action == "reconnect" || line.Action == "account_pending"
		if person && !consent {
			require.NotEmpty(d.t, line.RequestID, "%v", line)
		}
		if consent && line.Action != "connect_refused" || line.Action == "link_made" {
			require.NotEmpty(d.t, line.Link, "%v", line)
		}
	}
	require.Equal(d.t, d.want, got)
	d.secrets["any canary"] = "CANARY"
	d.secrets["client secret"] = d.site.idp.ClientSecret()
	for token := range d.site.idp.Refreshes() {
		d.secrets["refresh token "+token] = token
	}
	require.Empty(d.t, leaks(map[string]string{"audit log": d.places["audit log"]}, d.secrets))
}
