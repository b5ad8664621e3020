package main

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

func TestEveryPageOfUsersLinksTheNextOne(t *testing.T) {
	p := authflowtest.NewProvider(authflowtest.Config{})
	api := httptest.NewServer(usersHandler("http://api.test", p.Authenticate))
	defer api.Close()
	header := http.Header{"Authorization": {"Bearer " + p.Issue("acme-admin").Access}}

	var ids []string
	next := "/v1.0/users?$top=3"
	for pages := 0; next != ""; pages++ {
		require.Less(t, pages, 3)
		status, _, body, err := get(t.Context(), api.Client(), api.URL+next, header)
		require.NoError(t, err)
		require.Equal(t, 200, status, "%s", body)
		var r reply
		require.NoError(t, json.Unmarshal(body, &r))
		for _, u := range r.Value {
			ids = append(ids, u.ID)
		}
		link, err := url.Parse(r.NextLink)
		require.NoError(t, err)
		next = link.RequestURI()
		if r.NextLink == "" {
			next = ""
		}
	}
	require.Equal(t, []string{"acme-1", "acme-2", "acme-3", "acme-4", "acme-5", "acme-6", "acme-7"}, ids)

	status, header, _, err := get(t.Context(), api.Client(), api.URL+"/v1.0/users", nil)
	require.NoError(t, err)
	require.Equal(t, 401, status)
	require.NotEmpty(t, header.Get("WWW-Authenticate"))
}

func TestTheProviderAsksWhoAndWhetherBeforeItGrants(t *testing.T) {
	p := newProvider("http://idp.test", time.Minute)
	p.Register("http://bifrost.test/callback")
	idp := httptest.NewServer(providerHandler(p))
	defer idp.Close()
	b := newBrowser()
	b.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	authorize := idp.URL + "/acme.example/authorize?" + url.Values{
		"client_id": {p.ClientID()}, "redirect_uri": {"http://bifrost.test/callback"}, "response_type": {"code"}, "state": {"s"},
		"scope": {"offline_access <b>"}, "code_challenge": {"4WUeJsG1ZQlDQrDH2GX0CxJtTgY2gv0a6pXbQm4vK1E"}, "code_challenge_method": {"S256"},
	}.Encode()

	signIn, err := b.open(t.Context(), authorize)
	require.NoError(t, err)
	require.Equal(t, []string{"acme-admin"}, signIn.forms[0].fields["user"])

	asked, err := b.submit(t.Context(), signIn, signIn.forms[0], url.Values{"user": {"<i>eve</i>"}})
	require.NoError(t, err)
	require.Equal(t, 200, asked.status, "nothing is granted yet")
	require.NotContains(t, string(asked.text), "<i>eve")
	require.Contains(t, string(asked.text), "offline_access")
	require.Equal(t, url.Values{"user": {"<i>eve</i>"}}, asked.forms[0].fields)

	for decision, parameter := range map[string]string{"allow": "code=", "deny": "error=access_denied"} {
		done, err := b.submit(t.Context(), asked, asked.forms[0], url.Values{"decision": {decision}})
		require.NoError(t, err)
		require.Equal(t, http.StatusSeeOther, done.status)
		require.Contains(t, done.location, "http://bifrost.test/callback?")
		require.Contains(t, done.location, parameter)
	}
}

func TestATakenPortIsNamed(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	_, err = listenAll(port, 1)
	require.ErrorContains(t, err, strconv.Itoa(port))
	require.ErrorContains(t, err, "-port")
}

func TestTheConfigurationLoads(t *testing.T) {
	d := &demo{
		proxy: "http://127.0.0.1:1", auth: "http://127.0.0.1:2", ops: "http://127.0.0.1:3", api: "http://127.0.0.1:5",
		dir: t.TempDir(), provider: newProvider("http://127.0.0.1:4", time.Minute),
	}
	_, err := d.writeConfig()
	require.NoError(t, err)
	var out bytes.Buffer
	d.welcome(&out)
	require.NotContains(t, out.String(), "%!")
}
