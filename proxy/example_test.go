package proxy_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/proxy"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// oneToken is a Broker whose connections all work.
type oneToken struct{}

func (oneToken) Token(_ context.Context, slot tokenstore.Slot) (authflow.Credential, error) {
	return authflow.NewCredential(slot, "Bearer token-of-"+string(slot.Org)), nil
}

func (oneToken) Replace(context.Context, authflow.Credential) (authflow.Credential, error) {
	return authflow.Credential{}, authflow.ErrProvider
}

func Example() {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintln(w, r.Method, r.RequestURI, r.Header.Get("Authorization"))
	}))
	defer upstream.Close()
	p, err := proxy.New(proxy.Config{
		Broker:  oneToken{}, // an *authflow.Broker
		Callers: []proxy.Caller{{Name: "jobs", Key: func() string { return "a caller's key" }, Orgs: []string{"acme"}, Integrations: []string{"*"}}},
		Routes: []proxy.Route{{
			Integration: "Microsoft_Graph",
			Prefix:      "/graph",
			Target:      func(tokenstore.Org) (proxy.Target, error) { return proxy.Target{BaseURL: upstream.URL}, nil },
		}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = p.Close() }()
	front := httptest.NewServer(p)
	defer front.Close()

	for _, key := range []string{"a caller's key", "another"} {
		r, _ := http.NewRequest("GET", front.URL+"/graph/v1.0/users?$top=5", nil)
		r.Header.Set("X-Bifrost-Key", key)
		r.Header.Set("X-Org-ID", "acme")
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			fmt.Println(err)
			return
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if code := res.Header.Get("X-Bifrost-Error"); code != "" {
			fmt.Println(res.StatusCode, code)
			continue
		}
		fmt.Print(string(body))
	}
	// Output:
	// GET /v1.0/users?$top=5 Bearer token-of-acme
	// 401 caller_unauthenticated
}
