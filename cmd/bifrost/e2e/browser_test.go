package e2e_test

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// browserLimit bounds one command of a browser; the script gives up before.
const browserLimit = 40 * time.Second

// TestAnOperatorConnectsInABrowser walks an operator through the Integrations screen and the demo provider's consent, as wide
// and narrow, light and dark, with and without JavaScript.
func TestAnOperatorConnectsInABrowser(t *testing.T) {
	t.Parallel()
	d := startDemo(t)
	for _, look := range []look{
		{name: "light", width: 1280, scheme: "light", script: true},
		{name: "dark-without-javascript", width: 1280, scheme: "dark"},
		{name: "narrow", width: 390, scheme: "light", script: true},
	} {
		t.Run(look.name, func(t *testing.T) { d.story(newBrowser(t, look)) })
	}
}

func (d *runningDemo) story(b *browser) {
	b.open(d.screen)
	b.sees("Use an operator’s token")
	b.shot("1-sign-in")
	b.fill("Operator token", "CANARY-wrong-token")
	b.press("Sign in")
	b.sees("not a valid operator token")
	b.refused(http.StatusUnauthorized)
	b.shot("2-wrong-token")

	b.fill("Operator token", operatorToken)
	b.press("Sign in")
	b.seesInRow("acme", "Not connected")
	b.shot("3-not-connected")
	b.copies("Copy", d.auth+"/oauth/callback/Microsoft_Graph")

	b.press("Connect acme")
	d.consents(b, "4-connect-")
	b.seesInRow("acme", "Active")
	b.seesInRow("acme", "by ops")
	b.shot("5-active")
	d.expectUsers(b.t)

	d.breakGrant(b.t)
	b.press("Refresh acme")
	b.seesInRow("acme", "Needs reconnect")
	b.seesInRow("acme", "invalid_grant")
	b.shot("6-needs-reconnect")

	b.press("Reconnect acme")
	d.consents(b, "7-reconnect-")
	b.seesInRow("acme", "Active")
	d.expectUsers(b.t)

	b.press("History of acme")
	b.sees("Reconnect")
	b.sees("needs_reconnect")
	b.shot("8-history")
	b.press("← Integrations")

	b.press("Disconnect acme")
	b.sees("Disconnect acme?")
	b.shot("8-disconnect")
	b.press("Disconnect")
	b.seesInRow("acme", "Not connected")
	b.shot("9-disconnected")
	require.Equal(b.t, "not_connected", read(b.t)(d.call("acme")).Header.Get("X-Bifrost-Error"))

	b.press("Connect globex")
	d.denies(b, "10-denied")
	b.open(d.screen)
	b.seesInRow("globex", "Not connected")

	b.press("Sign out")
	b.sees("Use an operator’s token")
	b.open(d.screen)
	b.sees("Use an operator’s token")
}

// consents goes from the page that names what will be connected through the provider's sign-in and consent back to the screen.
func (d *runningDemo) consents(b *browser, shots string) {
	b.t.Helper()
	b.sees("Connect Microsoft_Graph")
	b.shot(shots + "1-landing")
	b.press("Continue to " + d.provider)
	b.press("Next")
	b.sees("Permissions requested")
	b.shot(shots + "2-consent")
	b.press("Accept")
	b.sees("Microsoft_Graph is connected")
	b.shot(shots + "3-done")
	b.press("Open Integrations")
}

// denies goes to the provider and says no there.
func (d *runningDemo) denies(b *browser, shot string) {
	b.t.Helper()
	b.press("Continue to " + d.provider)
	b.press("Next")
	b.press("Cancel")
	b.sees("access_denied")
	b.refused(http.StatusForbidden)
	b.shot(shot)
}

// runningDemo is the demo, with an operator in its configuration.
type runningDemo struct {
	dir, auth, screen, proxied, breaks string // addresses, as the demo prints them
	provider                           string // host
}

// startDemo builds and runs the demo until the test ends.
func startDemo(t *testing.T) *runningDemo {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "bifrost-demo")
	problems, err := exec.Command("go", "build", "-o", binary, "../../bifrost-demo").CombinedOutput()
	require.NoError(t, err, "%s", problems)

	cmd := exec.Command(binary, "-port", "0", "-token-life", "1h") // the cleanup ends it in order
	told := new(output)
	cmd.Stdout, cmd.Stderr = told, told
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() { // ends with the demo
		_ = cmd.Wait() // ProcessState tells
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		kill := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		<-ended
		kill.Stop()
		require.Zero(t, cmd.ProcessState.ExitCode(), told.String())
	})
	require.Eventually(t, func() bool { return strings.Contains(told.String(), "Ctrl-C ends everything") }, 3*patience, 50*time.Millisecond, "the demo does not start")

	d := &runningDemo{
		screen:  find(t, told.String(), `(http://\S+/integrations)`),
		proxied: find(t, told.String(), `X-Org-ID: acme' '(http://\S+)'`),
		breaks:  find(t, told.String(), `'(http://\S+/break\?user=acme-admin)'`),
		dir:     find(t, told.String(), `Configuration and log are in (\S+);`),
	}
	d.auth = strings.TrimSuffix(d.screen, "/integrations")
	d.provider = find(t, d.breaks, `http://([^/]+)/`)
	d.addOperator(t)
	return d
}

// addOperator changes the demo's configuration, which bifrost loads at once, and waits until the screen asks who comes.
func (d *runningDemo) addOperator(t *testing.T) {
	t.Helper()
	require.Contains(t, read(t)(http.Get(d.screen)).Body, "Open to everyone on this machine")
	file := filepath.Join(d.dir, "bifrost.yaml")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(d.dir, "operator"), []byte(operatorToken), 0o600))
	changed := strings.Replace(string(text), "\nops:", "\n  operators:\n    - {name: ops, token: {file: operator}}\nops:", 1)
	require.NotEqual(t, string(text), changed)
	require.NoError(t, os.WriteFile(file, []byte(changed), 0o600))
	require.Eventually(t, func() bool {
		return strings.Contains(read(t)(http.Get(d.screen)).Body, "Operator token")
	}, patience, 50*time.Millisecond, "the screen must ask for a token")
}

func (d *runningDemo) call(org string) (*http.Response, error) {
	req, err := http.NewRequest(http.MethodGet, d.proxied, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Org-ID", org)
	return http.DefaultClient.Do(req)
}

// expectUsers calls the API through the proxy and gets acme's users.
func (d *runningDemo) expectUsers(t *testing.T) {
	t.Helper()
	ans := read(t)(d.call("acme"))
	require.Equal(t, http.StatusOK, ans.Status, ans.Body)
	require.Equal(t, "org", ans.Header.Get("X-Bifrost-Connection"))
	var users struct {
		Value []struct{ UserPrincipalName string }
	}
	require.NoError(t, json.Unmarshal([]byte(ans.Body), &users))
	require.NotEmpty(t, users.Value)
	for _, user := range users.Value {
		require.True(t, strings.HasSuffix(user.UserPrincipalName, "@acme.example"), user.UserPrincipalName)
	}
}

// breakGrant withdraws the consent at the provider.
func (d *runningDemo) breakGrant(t *testing.T) {
	t.Helper()
	require.Equal(t, http.StatusOK, read(t)(http.Post(d.breaks, "", nil)).Status)
}

func find(t *testing.T, text, pattern string) string {
	t.Helper()
	found := regexp.MustCompile(pattern).FindStringSubmatch(text)
	require.NotNil(t, found, "no %s in %s", pattern, text)
	return found[1]
}

// look is how a browser looks at pages.
type look struct {
	name, scheme string
	width        int
	script       bool
}

// browser is a real one, which a script controls.
type browser struct {
	t      *testing.T
	look   look
	script *script
	sent   int
}

func newBrowser(t *testing.T, look look) *browser {
	t.Helper()
	executable, err := exec.LookPath("chromium")
	require.NoError(t, err, "chromium is not installed: run `make test`")
	artifacts, err := filepath.Abs(filepath.Join("artifacts", look.name))
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(artifacts, 0o750))
	options := map[string]any{
		"javaScriptEnabled": look.script, "colorScheme": look.scheme, "viewport": map[string]int{"width": look.width, "height": 800},
	}
	if look.script {
		options["permissions"] = []string{"clipboard-read", "clipboard-write"}
	}
	return &browser{t: t, look: look, script: startScript(t, "browser.mjs", map[string]any{
		"executable": executable, "artifacts": artifacts, "context": options,
	})}
}

// do sends a command and waits for its answer.
func (b *browser) do(command map[string]any) event {
	b.t.Helper()
	b.sent++
	command["id"] = b.sent
	b.script.send(b.t, command)
	ans := b.script.await(b.t, "an answer", browserLimit, func(e event) bool { return e["id"] == float64(b.sent) })
	if ans.text("event") != "done" {
		b.script.send(b.t, map[string]any{"do": "shot", "name": "failure", "id": 0})
		b.script.await(b.t, "what it shows", browserLimit, func(e event) bool { return e["id"] == 0.0 })
	}
	require.Equal(b.t, "done", ans.text("event"), "%v: %v", command, ans["message"])
	return ans
}

func (b *browser) open(address string) {
	b.t.Helper()
	b.do(map[string]any{"do": "open", "url": address})
}
func (b *browser) press(name string) { b.t.Helper(); b.do(map[string]any{"do": "press", "name": name}) }
func (b *browser) fill(label, value string) {
	b.t.Helper()
	b.do(map[string]any{"do": "fill", "label": label, "value": value})
}
func (b *browser) sees(text string) { b.t.Helper(); b.do(map[string]any{"do": "sees", "text": text}) }

func (b *browser) seesInRow(org, text string) {
	b.t.Helper()
	b.do(map[string]any{"do": "seesInRow", "org": org, "text": text})
}

// shot keeps a picture of the page, which must have loaded well, fit, and give the console nothing to complain of.
func (b *browser) shot(name string) {
	b.t.Helper()
	state := b.do(map[string]any{"do": "state"})
	require.Empty(b.t, state["problems"], "at %s", state["url"])
	require.EqualValues(b.t, 0, state["overflow"], "%s is wider than its window", state["url"])
	require.NotContains(b.t, state.text("url"), operatorToken)
	require.NotContains(b.t, state.text("content"), "CANARY", "of a token, or of what the provider says of its error")
	b.do(map[string]any{"do": "shot", "name": name})
}

// refused checks the status of the page, about which the console complains once.
func (b *browser) refused(status int) {
	b.t.Helper()
	state := b.do(map[string]any{"do": "state"})
	require.EqualValues(b.t, status, state["status"], "at %s", state["url"])
	problems, _ := state["problems"].([]any) // empty where there is none
	require.Len(b.t, problems, 1)
	require.Contains(b.t, problems[0], "the server responded with a status of")
}

// copies presses a copy button, which is there only if it can work.
func (b *browser) copies(button, text string) {
	b.t.Helper()
	if !b.look.script {
		require.EqualValues(b.t, 0, b.do(map[string]any{"do": "has", "button": button})["count"], "a button that does nothing is shown")
		return
	}
	b.press(button)
	b.sees("Copied")
	require.Equal(b.t, text, b.do(map[string]any{"do": "clipboard"}).text("text"))
}
