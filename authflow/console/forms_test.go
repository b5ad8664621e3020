package console_test

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

var (
	formElement  = regexp.MustCompile(`(?s)<form[^>]*method="post"[^>]*action="([^"]*)"[^>]*>(.*?)</form>`)
	namedField   = regexp.MustCompile(`<(?:input|button)[^>]*name="([^"]*)"[^>]*value="([^"]*)"`)
	buttonAction = regexp.MustCompile(`formaction="([^"]*)"`)
)

// Every button of the screen is pressed as a browser does: with exactly the fields of its form, each once.
func TestEveryButtonNamesItsOwnConnection(t *testing.T) {
	s := newSite(t).signIn()
	var pressed []string
	s.broker.connectLink = func(slot tokenstore.Slot, _ string, life time.Duration) (authflow.Link, error) {
		pressed = append(pressed, map[bool]string{true: "connect ", false: "link "}[life == authflow.ButtonLife]+slot.String())
		return authflow.Link{URL: "https://bifrost.example.com/"}, nil
	}
	s.broker.refresh = func(slot tokenstore.Slot) (authflow.Connection, error) {
		pressed = append(pressed, "refresh "+slot.String())
		return authflow.Connection{}, nil
	}
	for _, form := range formElement.FindAllStringSubmatch(s.get("/integrations").Body.String(), -1) {
		if strings.HasSuffix(form[1], "/sign-out") {
			continue
		}
		fields := url.Values{}
		for _, field := range namedField.FindAllStringSubmatch(form[2], -1) {
			fields.Add(field[1], field[2])
		}
		if strings.Contains(form[2], `type="text"`) {
			fields.Add("org", "typed")
		}
		require.Len(t, fields["org"], 1, form[0])
		actions := []string{form[1]}
		for _, action := range buttonAction.FindAllStringSubmatch(form[2], -1) {
			actions = append(actions, action[1])
		}
		for _, action := range actions {
			want := http.StatusSeeOther
			if strings.HasSuffix(action, "/links") {
				want = http.StatusOK // it shows the link
			}
			require.Equal(t, want, s.post(action, "org", fields.Get("org"), "form", fields.Get("form"), "view", fields.Get("view")).Code, action)
		}
	}
	require.Equal(t, []string{
		"connect Microsoft_Graph/@global", "link Microsoft_Graph/@global", "refresh Microsoft_Graph/@global",
		"connect Microsoft_Graph/acme", "link Microsoft_Graph/acme",
		"connect Microsoft_Graph/degraded.org", "link Microsoft_Graph/degraded.org", "refresh Microsoft_Graph/degraded.org",
		"connect Microsoft_Graph/expiring-org", "link Microsoft_Graph/expiring-org",
		"connect Microsoft_Graph/globex", "link Microsoft_Graph/globex",
		"connect Microsoft_Graph/typed", "link Microsoft_Graph/typed",
		"connect Private/typed", "link Private/typed", "connect Private/@global",
	}, pressed)
}
