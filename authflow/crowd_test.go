package authflow_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

const (
	heldBack    = postTime + 5*time.Second // with a grace: for so long a store that may have lost an Intent counts as holding one
	atOnce      = time.Second              // what takes longer is no service
	askEvery    = 100 * time.Millisecond   // of each org at each replica
	answerTime  = 11 * time.Second         // no request waits longer: 10 s, and room for a busy machine
	refusalTime = 2500 * time.Millisecond  // nor for the word that the store is away: 1 s is promised
)

// crowd asks every replica for every org's token, again and again, and judges the answers.
type crowd struct {
	t    *testing.T
	c    *cluster
	orgs []tokenstore.Org
	stop func()

	mu      sync.Mutex // guards all below
	asked   int
	failed  map[error]int
	longest map[error]time.Duration
	seats   []seat // per org and replica
}

// seat is one org at one replica. The crowd's mu guards it.
type seat struct {
	asked  time.Time // when it began to wait for an answer; zero: it does not
	served time.Time // since when every answer has been a token, at once; zero: the last one was not
}

// startCrowd begins; verify, or the test's end, ends it.
func (c *cluster) startCrowd(t *testing.T, orgs []tokenstore.Org) *crowd {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	l := &crowd{
		t: t, c: c, orgs: orgs, stop: func() { cancel(); all.Wait() },
		failed: map[error]int{}, longest: map[error]time.Duration{}, seats: make([]seat, len(orgs)*len(c.replicas)),
	}
	for i, org := range orgs {
		for j, b := range c.replicas {
			all.Go(func() {
				for ctx.Err() == nil {
					l.ask(b, org, &l.seats[i*len(c.replicas)+j])
					select {
					case <-ctx.Done():
					case <-time.After(askEvery):
					}
				}
			})
		}
	}
	t.Cleanup(l.stop)
	return l
}

// ask wants a token of exactly this org, or that the store or a refresh is to be waited for.
func (l *crowd) ask(b *authflow.Broker, org tokenstore.Org, at *seat) {
	began := time.Now()
	l.mu.Lock()
	at.asked = began
	l.mu.Unlock()
	cred, err := b.Token(context.Background(), slot(org))
	took := time.Since(began)
	var reason error
	if err == nil {
		token, known := l.c.provider.Lookup(cred.Header()[len("Bearer "):])
		if !known || token.User != string(org) || cred.Slot != slot(org) {
			l.t.Errorf("%s got a token of %q", org, token.User)
		}
	} else if reason = errors.Unwrap(err); reason != authflow.ErrStore && reason != authflow.ErrPending {
		l.t.Errorf("%s: %v", org, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	at.asked = time.Time{}
	l.longest[reason] = max(l.longest[reason], took)
	switch {
	case err != nil:
		l.failed[reason]++
		at.served = time.Time{}
	case at.served.IsZero(), took > atOnce:
		at.served = time.Now()
	}
}

// settles waits until every replica has served every org for longer than a token lives.
func (l *crowd) settles(within time.Duration) {
	l.t.Helper()
	began := time.Now()
	require.Eventuallyf(l.t, func() bool {
		full := l.fullSince()
		if full.IsZero() {
			return false
		}
		if full.Before(began) {
			full = began
		}
		return time.Since(full) > 2500*time.Millisecond
	}, within, 20*time.Millisecond, "not everything is served: %v", l)
}

// fullSince returns since when everything has been served at once; zero if it is not.
func (l *crowd) fullSince() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	var last time.Time
	for _, at := range l.seats {
		if at.served.IsZero() || !at.asked.IsZero() && time.Since(at.asked) > atOnce {
			return time.Time{}
		}
		if at.served.After(last) {
			last = at.served
		}
	}
	return last
}

// verify ends the load and requires that everything has been served again since event and the given time, that nobody waited too
// long, and that no refresh token was used twice.
func (l *crowd) verify(event time.Time, back time.Duration) {
	l.t.Helper()
	l.stop()
	full := l.fullSince()
	l.t.Logf("%d requests; %v; full service %v after the event; %d POSTs", l.asked, l, full.Sub(event), l.c.provider.Count("refresh_token"))
	require.False(l.t, full.IsZero())
	require.LessOrEqual(l.t, full.Sub(event), back)
	for reason, longest := range l.longest {
		require.Less(l.t, longest, answerTime, reason)
	}
	require.Less(l.t, l.longest[authflow.ErrStore], refusalTime)
	require.Empty(l.t, l.c.provider.Reuses())
	for _, n := range l.c.provider.Refreshes() {
		require.Equal(l.t, 1, n, "a refresh token was POSTed more than once")
	}
	for _, org := range l.orgs {
		seen, err := l.c.replicas[0].Connection(l.t.Context(), slot(org))
		require.NoError(l.t, err)
		require.NotEqual(l.t, authflow.NeedsReconnect, seen.Status, org)
	}
}

// String tells how many requests failed, and how long the longest took, by the reason.
func (l *crowd) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []string
	for reason, longest := range l.longest {
		lines = append(lines, fmt.Sprintf("%v: %d, at most %v", reason, l.failed[reason], longest))
	}
	return strings.Join(lines, "; ")
}

// sweeping has a replica run until the test ends.
func sweeping(t *testing.T, b *authflow.Broker) {
	ctx, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { b.Run(ctx) })
	t.Cleanup(func() { stop(); all.Wait() })
}

func orgNames(n int) []tokenstore.Org {
	orgs := make([]tokenstore.Org, n)
	for i := range orgs {
		orgs[i] = tokenstore.Org(fmt.Sprintf("org-%d", i))
	}
	return orgs
}
