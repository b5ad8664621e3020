package e2e_test

import (
	"net/http"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestACustomerConnectsInABrowser has an operator send a connect link to a customer's administrator, who opens it in a browser of
// his own: first under the wrong account, which the operator rejects, then confirms, then revokes what is left.
func TestACustomerConnectsInABrowser(t *testing.T) {
	t.Parallel()
	d := startDemo(t)
	for _, look := range []look{
		{name: "customer-light", width: 1280, scheme: "light", script: true},
		{name: "customer-dark-narrow", width: 390, scheme: "dark"},
	} {
		t.Run(look.name, func(t *testing.T) { d.customerStory(t, look) })
	}
}

func (d *runningDemo) customerStory(t *testing.T, look look) {
	ops, customer := newBrowser(t, look), newBrowser(t, look)
	ops.open(d.screen)
	ops.fill("Operator token", operatorToken)
	ops.press("Sign in")
	link := d.makesLink(ops, "1-link")

	customer.open(link)
	customer.sees("Link made by")
	customer.sees("Good until")
	customer.shot("2-landing")
	d.consentsAs(customer, "acme-admin")
	customer.sees("Microsoft_Graph is connected")
	customer.sees("You can close this page")
	require.NotContains(t, customer.do(map[string]any{"do": "state"}).text("content"), "/integrations", "a screen that asks him to sign in")
	customer.shot("3-done")
	customer.open(link)
	customer.sees("This connect link cannot be used")
	customer.refused(http.StatusForbidden)
	customer.shot("4-spent")
	d.expectUsers(t)

	ops.open(d.screen)
	link = d.makesLink(ops, "5-link")
	for _, step := range []struct{ press, then, shot string }{
		{"Reject acme", "goes on with the account that it had", "7-rejected"},
		{"Confirm acme", "is connected with the other account now", "8-confirmed"},
	} {
		customer.open(link)
		d.consentsAs(customer, "globex-admin")
		customer.sees("An operator has to confirm this")
		customer.shot("6-awaiting")
		d.expectUsers(t)
		ops.open(d.screen)
		ops.seesInRow("acme", "Another account")
		ops.shot("6-row")
		ops.press(step.press)
		ops.sees(step.then)
		ops.shot(step.shot)
	}
	customer.open(link)
	customer.refused(http.StatusForbidden)

	link = d.makesLink(ops, "9-link")
	ops.press("Revoke all")
	ops.sees("There is none.")
	ops.shot("10-revoked")
	customer.open(link)
	customer.sees("This connect link cannot be used")
	customer.refused(http.StatusForbidden)
	ops.open(d.screen)
	ops.press("Disconnect acme") // for the next look
	ops.press("Disconnect")
	ops.seesInRow("acme", "Not connected")
}

var shownLink = regexp.MustCompile(`<code>(http://[^<]*/oauth/connect/Microsoft_Graph\?ticket=[^<]*)</code>`)

// makesLink presses the button of acme's row and returns the link that is shown once.
func (d *runningDemo) makesLink(b *browser, shot string) string {
	b.t.Helper()
	b.press("Connect link for acme")
	b.sees("The new link")
	b.shot(shot)
	found := shownLink.FindStringSubmatch(b.do(map[string]any{"do": "state"}).text("content"))
	require.NotNil(b.t, found)
	b.copies("Copy", found[1])
	return found[1]
}

// consentsAs goes from the landing page through the provider's sign-in and consent.
func (d *runningDemo) consentsAs(b *browser, user string) {
	b.t.Helper()
	b.press("Continue to " + d.provider)
	b.fill("User", user)
	b.press("Next")
	b.sees("Permissions requested")
	b.press("Accept")
}
