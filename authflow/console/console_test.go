package console_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/console"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

const (
	operatorToken = "CANARY-operator-token"
	otherToken    = "CANARY-other-operator-token"
	clientSecret  = "CANARY-client-secret"
)

// broker is a Broker of given functions and connections.
type broker struct {
	integrations []*authflow.Integration
	connections  []authflow.Connection
	listError    error

	connectLink func(slot tokenstore.Slot, by string, life time.Duration) (authflow.Link, error)
	refresh     func(slot tokenstore.Slot) (authflow.Connection, error)
	disconnect  func(slot tokenstore.Slot, by string) error
	importGrant func(slot tokenstore.Slot, refreshToken, by string) (authflow.Connection, error)

	openLinks []authflow.OpenLink                         // of every connection
	revoke    func(slot tokenstore.Slot, id string) error // an empty id: all
	decide    func(slot tokenstore.Slot, id, by string, confirm bool) error
}

func (b *broker) Integrations() []*authflow.Integration { return b.integrations }

func (b *broker) Integration(name string) (*authflow.Integration, bool) {
	for _, in := range b.integrations {
		if in.Name == name {
			return in, true
		}
	}
	return nil, false
}

func (b *broker) Connection(_ context.Context, slot tokenstore.Slot) (authflow.Connection, error) {
	for _, con := range b.connections {
		if con.Slot == slot {
			return con, b.listError
		}
	}
	return authflow.Connection{Slot: slot, Status: authflow.NotConnected}, b.listError
}

func (b *broker) Connections(_ context.Context, integration string) ([]authflow.Connection, error) {
	var out []authflow.Connection
	for _, con := range b.connections {
		if con.Slot.Integration == integration {
			out = append(out, con)
		}
	}
	return out, b.listError
}

func (b *broker) ConnectLink(_ context.Context, slot tokenstore.Slot, by string, life time.Duration) (authflow.Link, error) {
	return b.connectLink(slot, by, life)
}

func (b *broker) Refresh(_ context.Context, slot tokenstore.Slot) (authflow.Connection, error) {
	return b.refresh(slot)
}

func (b *broker) Disconnect(_ context.Context, slot tokenstore.Slot, by string) error {
	return b.disconnect(slot, by)
}

func (b *broker) Import(_ context.Context, slot tokenstore.Slot, refreshToken, by string) (authflow.Connection, error) {
	return b.importGrant(slot, refreshToken, by)
}

func (b *broker) ConnectHere(_ context.Context, slot tokenstore.Slot, by string) (authflow.Link, error) {
	return b.connectLink(slot, by, authflow.ButtonLife)
}

func (b *broker) ConnectLinks(context.Context, tokenstore.Slot) ([]authflow.OpenLink, error) {
	return b.openLinks, b.listError
}

func (b *broker) RevokeLink(_ context.Context, slot tokenstore.Slot, id string) error {
	return b.revoke(slot, id)
}

func (b *broker) RevokeLinks(_ context.Context, slot tokenstore.Slot) (int, error) {
	return len(b.openLinks), b.revoke(slot, "")
}

func (b *broker) Confirm(_ context.Context, slot tokenstore.Slot, id, by string) (authflow.Connection, error) {
	return authflow.Connection{Slot: slot, Status: authflow.Active}, b.decide(slot, id, by, true)
}

func (b *broker) Reject(_ context.Context, slot tokenstore.Slot, id, by string) error {
	return b.decide(slot, id, by, false)
}

// shelf is a Shelf in memory that forgets nothing by itself.
type shelf struct {
	mu     sync.Mutex // guards the map
	values map[string][]byte
	err    error
}

func (s *shelf) Put(_ context.Context, id string, value []byte, _ time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[id] = value
	return s.err
}

func (s *shelf) Take(_ context.Context, id string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	value, ok := s.values[id]
	if !ok {
		return nil, tokenstore.ErrNotFound
	}
	delete(s.values, id)
	return value, s.err
}

func (s *shelf) Peek(_ context.Context, ids ...string) ([][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out [][]byte
	for _, id := range ids {
		out = append(out, s.values[id])
	}
	return out, s.err
}

// site is a console under test, and a browser that keeps cookies.
type site struct {
	t       *testing.T
	broker  *broker
	shelf   *shelf
	token   string // operator ops' token
	log     bytes.Buffer
	handler http.Handler
	origin  string
	cookies map[string]string
}

// newSite returns a site with operators, on https, unless change says otherwise.
func newSite(t *testing.T, change ...func(*console.Config)) *site {
	t.Helper()
	s := &site{t: t, broker: sampleBroker(), shelf: &shelf{values: map[string][]byte{}}, token: operatorToken, cookies: map[string]string{}}
	cfg := console.Config{
		Broker: s.broker, Sessions: s.shelf, PublicURL: "https://bifrost.example.com",
		Operators: []console.Operator{
			{Name: "ops", Token: func() string { return s.token }},
			{Name: "other", Token: func() string { return otherToken }},
		},
		Log: slog.New(slog.NewJSONHandler(&s.log, nil)),
	}
	for _, f := range change {
		f(&cfg)
	}
	public, err := url.Parse(cfg.PublicURL)
	require.NoError(t, err)
	s.origin = public.Scheme + "://" + public.Host
	s.handler, err = console.New(cfg)
	require.NoError(t, err)
	return s
}

func openMode(cfg *console.Config) {
	cfg.Operators, cfg.PublicURL = nil, "http://127.0.0.1:8081"
}

// do sends a request as a browser on our own page does, and keeps the cookies of the answer.
func (s *site) do(r *http.Request) *httptest.ResponseRecorder {
	for name, value := range s.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	for _, cookie := range w.Result().Cookies() {
		if cookie.MaxAge < 0 {
			delete(s.cookies, cookie.Name)
		} else {
			s.cookies[cookie.Name] = cookie.Value
		}
	}
	return w
}

func (s *site) request(method, path, body string) *http.Request {
	r := httptest.NewRequest(method, s.origin+path, strings.NewReader(body))
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return r
}

func (s *site) get(path string) *httptest.ResponseRecorder {
	return s.do(s.request(http.MethodGet, path, ""))
}

func (s *site) form(path string, fields ...string) *http.Request {
	values := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		values.Set(fields[i], fields[i+1])
	}
	r := s.request(http.MethodPost, path, values.Encode())
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r
}

func (s *site) post(path string, fields ...string) *httptest.ResponseRecorder {
	return s.do(s.form(path, fields...))
}

func (s *site) signIn() *site {
	s.t.Helper()
	require.Equal(s.t, http.StatusSeeOther, s.post("/integrations/sign-in", "token", s.token).Code)
	return s
}

// call calls the API with a token, as a program: without cookies and without a browser's headers.
func (s *site) call(token, method, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, s.origin+"/api/v1"+path, strings.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w
}

// requireProblem asserts a failure's status, code and headers.
func requireProblem(t *testing.T, w *httptest.ResponseRecorder, status int, code string) {
	t.Helper()
	require.Equal(t, status, w.Code, w.Body)
	require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
	require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	require.Equal(t, code, w.Header().Get("X-Bifrost-Error"))
	var body map[string]any
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
	require.Equal(t, code, body["code"])
	require.EqualValues(t, status, body["status"])
	require.NotEmpty(t, body["type"])
	require.NotEmpty(t, body["title"])
	require.NotEmpty(t, body["detail"])
	require.NotEmpty(t, body["request_id"])
	require.Contains(t, body, "retryable")
	if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		require.Regexp(t, `^[1-9]\d*$`, w.Header().Get("Retry-After"))
	}
}

// formToken finds the form token of a page.
func formToken(t *testing.T, page string) string {
	t.Helper()
	found := regexp.MustCompile(`name="form" value="([^"]+)"`).FindStringSubmatch(page)
	require.NotNil(t, found)
	return found[1]
}

// sampleBroker has one integration of each kind and connections in every state.
func sampleBroker() *broker {
	at := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	graph := func(org tokenstore.Org, con authflow.Connection) authflow.Connection {
		con.Slot = tokenstore.Slot{Integration: "Microsoft_Graph", Org: org}
		return con
	}
	return &broker{
		integrations: []*authflow.Integration{
			{Name: "Machine", Flow: authflow.ClientCredentials, ClientSecret: func() string { return clientSecret }, Fallback: true},
			{Name: "Microsoft_Graph", Description: "Graph <script>alert(1)</script>", Fallback: true, Scopes: []string{"offline_access", "User.Read"},
				ClientSecret: func() string { return clientSecret }},
			{Name: "Private"},
		},
		connections: []authflow.Connection{
			graph(tokenstore.Global, authflow.Connection{Status: authflow.Active, ExpiresAt: at, LastRefresh: at.Add(-time.Hour), NextRefresh: at.Add(-10 * time.Minute),
				HasRefresh: true, Scopes: []string{"offline_access"}, ScopesMissing: []string{"User.Read"}, EntityID: "common", ConnectedAt: at.Add(-48 * time.Hour), ConnectedBy: "ops"}),
			graph("acme", authflow.Connection{Status: authflow.NeedsReconnect, HasRefresh: true, PendingSince: at.Add(-time.Minute),
				LastError: &authflow.LastError{Code: "invalid_grant", Text: "The provider refused the grant.", Time: at}, ConnectedBy: `<b>"eve"</b>`}),
			graph("degraded.org", authflow.Connection{Status: authflow.Degraded, HasRefresh: true, ExpiresAt: at.Add(time.Hour)}),
			graph("expiring-org", authflow.Connection{Status: authflow.Expiring, ExpiresAt: at}),
			graph("globex", authflow.Connection{Status: authflow.NotConnected, Fallback: true}),
			{Slot: tokenstore.Slot{Integration: "Private", Org: tokenstore.Global}, Status: authflow.NotConnected},
		},
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	token := func() string { return operatorToken }
	for name, change := range map[string]func(*console.Config){
		"no broker":                   func(cfg *console.Config) { cfg.Broker = nil },
		"no public URL":               func(cfg *console.Config) { cfg.PublicURL = "" },
		"nowhere to keep sessions":    func(cfg *console.Config) { cfg.Sessions = nil },
		"an operator without a name":  func(cfg *console.Config) { cfg.Operators = []console.Operator{{Token: token}} },
		"an operator without a token": func(cfg *console.Config) { cfg.Operators = []console.Operator{{Name: "ops"}} },
		"two operators of one name": func(cfg *console.Config) {
			cfg.Operators = []console.Operator{{Name: "ops", Token: token}, {Name: "ops", Token: token}}
		},
	} {
		cfg := console.Config{Broker: sampleBroker(), Sessions: &shelf{}, PublicURL: "https://bifrost.example.com",
			Operators: []console.Operator{{Name: "ops", Token: token}}}
		change(&cfg)
		_, err := console.New(cfg)
		require.Error(t, err, name)
	}
}
