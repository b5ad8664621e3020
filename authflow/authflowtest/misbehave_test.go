package authflowtest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

func send(c *http.Client, p *authflowtest.Provider, ctx context.Context, token string) (int, string, error) {
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, p.TokenURL, strings.NewReader(refreshForm(p, token).Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res.StatusCode, string(body), err
}

func TestDroppedConnections(t *testing.T) {
	served(t, authflowtest.Config{Refresh: authflowtest.OneTime}, func(t *testing.T, p *authflowtest.Provider, c *http.Client) {
		first := p.Issue("alice")
		p.Misbehave(authflowtest.DropBefore(), authflowtest.DropAfter(), authflowtest.CutBody())

		_, _, err := send(c, p, t.Context(), first.Refresh)
		require.Error(t, err)
		now, _ := p.Newest(first.Grant)
		require.Equal(t, first.Refresh, now.Refresh, "not processed")

		_, _, err = send(c, p, t.Context(), first.Refresh)
		require.Error(t, err)
		now, _ = p.Newest(first.Grant)
		require.NotEqual(t, first.Refresh, now.Refresh, "processed")

		status, body, err := send(c, p, t.Context(), now.Refresh)
		require.Equal(t, 200, status)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		require.True(t, strings.HasPrefix(body, "{"), "half an answer")

		now, _ = p.Newest(first.Grant)
		status, _, err = send(c, p, t.Context(), now.Refresh)
		require.NoError(t, err)
		require.Equal(t, 200, status, "the plan is used up")
		require.Equal(t, 4, p.Count("refresh_token"))
	})
}

func TestSlowAnswersAndClientsThatLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := authflowtest.InMemory(t, authflowtest.Config{Refresh: authflowtest.OneTime})
		first := p.Issue("alice")
		p.Misbehave(authflowtest.SlowBefore(20 * time.Second))
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		_, _, err := send(p.Client(), p, ctx, first.Refresh)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		now, _ := p.Newest(first.Grant)
		require.Equal(t, first.Refresh, now.Refresh)
		time.Sleep(6 * time.Second)
		now, _ = p.Newest(first.Grant)
		require.NotEqual(t, first.Refresh, now.Refresh, "the provider went on without the client")

		p.Misbehave(authflowtest.SlowAfter(3 * time.Second))
		began := time.Now()
		status, _, err := send(p.Client(), p, t.Context(), now.Refresh)
		require.NoError(t, err)
		require.Equal(t, 200, status)
		require.Equal(t, 3*time.Second, time.Since(began))
	})
}

func TestGatesHoldPOSTs(t *testing.T) {
	served(t, authflowtest.Config{Refresh: authflowtest.OneTime}, func(t *testing.T, p *authflowtest.Provider, c *http.Client) {
		first := p.Issue("alice")
		before, after := authflowtest.NewGate(), authflowtest.NewGate()
		p.Misbehave(authflowtest.Behaviour{HoldBefore: before, HoldAfter: after})
		var wg sync.WaitGroup
		var err error
		wg.Go(func() { _, _, err = send(c, p, t.Context(), first.Refresh) })

		<-before.Arrived()
		now, _ := p.Newest(first.Grant)
		require.Equal(t, first.Refresh, now.Refresh)
		before.Release()
		<-after.Arrived()
		now, _ = p.Newest(first.Grant)
		require.NotEqual(t, first.Refresh, now.Refresh)
		after.Release()
		wg.Wait()
		require.NoError(t, err)
	})
}

func TestMaxConcurrentCountsPOSTsThatOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := authflowtest.InMemory(t, authflowtest.Config{})
		p.MisbehaveAlways(authflowtest.SlowAfter(time.Second))
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { _, _, _ = send(p.Client(), p, t.Context(), p.Issue("alice").Refresh) })
		}
		wg.Wait()
		require.Equal(t, 3, p.MaxConcurrent())
		p.Behave()
		began := time.Now()
		_, _, _ = send(p.Client(), p, t.Context(), p.Issue("alice").Refresh)
		require.Zero(t, time.Since(began))
		require.Equal(t, 4, p.Count(""))
	})
}

func TestPlansCanChooseTheirPOST(t *testing.T) {
	p := authflowtest.NewProvider(authflowtest.Config{})
	alice, bob := p.Issue("alice"), p.Issue("bob")
	b := authflowtest.Status(503, "7")
	b.When = func(post authflowtest.Post) bool { return post.RefreshToken == bob.Refresh }
	p.Misbehave(b)
	status, _, _ := refresh(t, p, alice.Refresh)
	require.Equal(t, 200, status)
	status, _, _ = refresh(t, p, bob.Refresh)
	require.Equal(t, 503, status)
	status, _, _ = refresh(t, p, bob.Refresh)
	require.Equal(t, 200, status)
}

func TestRefusedConnectionsReachNothing(t *testing.T) {
	p := authflowtest.NewProvider(authflowtest.Config{})
	p.SetDown(true)
	_, _, err := send(p.Client(), p, t.Context(), p.Issue("alice").Refresh)
	require.True(t, errors.Is(err, syscall.ECONNREFUSED), err)
	require.Zero(t, p.Count(""))
	p.SetDown(false)
	_, _, err = send(p.Client(), p, t.Context(), p.Issue("alice").Refresh)
	require.NoError(t, err)
}

func TestStraysShowWhoFollowedARedirect(t *testing.T) {
	served(t, authflowtest.Config{}, func(t *testing.T, p *authflowtest.Provider, c *http.Client) {
		p.Misbehave(authflowtest.Redirect(307, p.BaseURL+"/elsewhere"), authflowtest.Redirect(307, p.BaseURL+"/elsewhere"))
		status, _, err := send(c, p, t.Context(), p.Issue("alice").Refresh)
		require.NoError(t, err)
		require.Equal(t, 307, status)
		require.Empty(t, p.Strays())
		c.CheckRedirect = nil
		_, _, err = send(c, p, t.Context(), p.Issue("alice").Refresh)
		require.NoError(t, err)
		require.Equal(t, []string{"POST /elsewhere"}, p.Strays())
	})
}

func TestAnswersAreMangledAsAsked(t *testing.T) {
	for name, c := range map[string]struct {
		b    authflowtest.Behaviour
		want string
	}{
		"a member":       {authflowtest.Member("expires_in", `" 3600"`), `"expires_in":" 3600"`},
		"a fraction":     {authflowtest.Member("expires_in", `3599.0`), `"expires_in":3599.0`},
		"a form":         {authflowtest.Form(), "token_type=Bearer"},
		"a second value": {authflowtest.Wrap("\ufeff", "{}"), "}{}"},
		"a duplicate":    {authflowtest.Duplicate("access_token", `"x"`), `,"access_token":"x"}`},
		"a number":       {authflowtest.NumericRefresh(), `"refresh_token":4`},
		"a page":         {authflowtest.HTML(200), "<!doctype html>"},
		"an error":       {authflowtest.OAuthError(200, "invalid_grant"), `"error":"invalid_grant"`},
	} {
		t.Run(name, func(t *testing.T) {
			p := authflowtest.NewProvider(authflowtest.Config{})
			p.Misbehave(c.b)
			_, body, err := send(p.Client(), p, t.Context(), p.Issue("alice").Refresh)
			require.NoError(t, err)
			require.Contains(t, body, c.want)
		})
	}
	p := authflowtest.NewProvider(authflowtest.Config{})
	p.Misbehave(authflowtest.Without("expires_in", "refresh_token"))
	_, body, err := send(p.Client(), p, t.Context(), p.Issue("alice").Refresh)
	require.NoError(t, err)
	require.NotContains(t, body, "expires_in")
	require.NotContains(t, body, "refresh_token")
	require.Contains(t, body, "access_token")
}
