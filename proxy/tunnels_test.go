package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func TestAQuietTunnelIsClosed(t *testing.T) {
	leavesNothing(t)
	upstream, ends := switching(t, switched)
	b := start(t, nil, websockets(func(r *Route) { r.WebSocketIdle = 50 * time.Millisecond }), upstream)
	caller, far := b.tunnel(t), <-ends
	caller.ended(t)
	far.ended(t)
	b.closedBecause(t, byIdle)
	count, err := testutil.GatherAndCount(b.registry, "bifrost_tunnels", "bifrost_tunnels_closed_total")
	require.NoError(t, err)
	require.Equal(t, 2, count)
}

func TestABusyTunnelIsClosedAtTheEndOfItsLife(t *testing.T) {
	b := start(t, echoing, websockets(func(r *Route) { r.WebSocketLifetime = 100 * time.Millisecond }))
	caller := b.tunnel(t)
	began := time.Now()
	go func() {
		for { // ends with the tunnel
			if _, err := io.WriteString(caller, "x"); err != nil {
				return
			}
		}
	}()
	caller.ended(t)
	require.GreaterOrEqual(t, time.Since(began), 50*time.Millisecond)
	b.closedBecause(t, byLifetime)
}

func upright(idle, lifetime time.Duration) (t *tunnel, caller net.Conn, upstream upstreamEnd, far net.Conn) {
	near, caller := net.Pipe()
	back, far := net.Pipe()
	t = &tunnel{route: &route{Route: Route{WebSocketIdle: idle, WebSocketLifetime: lifetime}}, cancel: func() {}}
	t.open(near)
	return t, caller, upstreamEnd{back, t}, far
}

// reason is why the tunnel was closed, once all of the bubble is at rest.
func (t *tunnel) reason() reason {
	synctest.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.why
}

func TestABytePostponesTheIdleEndInEitherDirection(t *testing.T) {
	for name, move := range map[string]func(upstreamEnd, net.Conn){
		"to the upstream": func(near upstreamEnd, far net.Conn) {
			go func() { _, _ = far.Read(make([]byte, 1)) }() // ends with the next line
			_, _ = near.Write([]byte("x"))
		},
		"from the upstream": func(near upstreamEnd, far net.Conn) {
			go func() { _, _ = far.Write([]byte("x")) }()
			_, _ = near.Read(make([]byte, 1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tunnel, _, near, far := upright(10*time.Minute, 12*time.Hour)
				for range 20 {
					time.Sleep(9 * time.Minute)
					require.True(t, tunnel.live())
					move(near, far)
				}
				time.Sleep(10*time.Minute - 1)
				require.True(t, tunnel.live())
				time.Sleep(2 * time.Nanosecond)
				require.Equal(t, byIdle, tunnel.reason())
			})
		})
	}
	t.Run("but not the end of its life", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tunnel, _, near, far := upright(10*time.Minute, time.Hour)
			for range 11 {
				time.Sleep(5 * time.Minute)
				go func() { _, _ = far.Read(make([]byte, 1)) }()
				_, _ = near.Write([]byte("x"))
			}
			time.Sleep(5*time.Minute - 1)
			require.True(t, tunnel.live())
			time.Sleep(2 * time.Nanosecond)
			require.Equal(t, byLifetime, tunnel.reason())
		})
	})
}

func TestTheLimitsHaveDefaults(t *testing.T) {
	b := start(t, nil)
	rt := b.proxy.routes[0]
	require.Equal(t, 10*time.Minute, rt.WebSocketIdle)
	require.Equal(t, 12*time.Hour, rt.WebSocketLifetime)
	require.Equal(t, 1000, rt.MaxWebSockets)
}

func TestTunnelsOverTheCapAreRefusedBeforeTheUpstreamIsAsked(t *testing.T) {
	b := start(t, echoing, websockets(func(r *Route) { r.MaxWebSockets = 2 }))
	first, second := b.tunnel(t), b.tunnel(t)
	res, body := b.get(t, "/graph/ws", "Connection: Upgrade", "Upgrade: websocket")
	requireProblem(t, res, body, 503, "overloaded")
	require.Equal(t, "5", res.Header.Get("Retry-After"))
	require.Len(t, b.requests(), 2)
	res, _ = b.get(t, "/graph/plain")
	require.Equal(t, 200, res.StatusCode, "other requests are no tunnels")

	require.NoError(t, first.Close())
	require.Eventually(t, func() bool {
		return testutil.ToFloat64(b.proxy.tunnels.open.WithLabelValues("Microsoft_Graph")) == 1
	}, 5*time.Second, time.Millisecond)
	b.tunnel(t).echoes(t)
	second.echoes(t)
}

func (b *bench) full(t *testing.T, ends <-chan end) (caller, far end) {
	t.Helper()
	caller, far = b.tunnel(t), <-ends
	var stuck atomic.Int64
	for _, e := range []end{caller, far} {
		require.NoError(t, e.SetWriteDeadline(time.Now().Add(time.Minute)))
		go func() {
			for { // ends with the tunnel
				if _, err := e.Write(make([]byte, 64<<10)); err != nil {
					return
				}
				stuck.Add(1)
			}
		}()
	}
	last := int64(-1)
	require.Eventually(t, func() bool { before := last; last = stuck.Load(); return last > 0 && last == before }, 20*time.Second, 200*time.Millisecond)
	return caller, far
}

func TestATunnelThatIsStuckBothWaysIsCut(t *testing.T) {
	leavesNothing(t)
	upstream, ends := switching(t, switched)
	b := start(t, nil, websockets(nil), upstream)
	caller, far := b.full(t, ends)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, 1, b.proxy.tunnels.Drain(over))
	b.closedBecause(t, byDrain)
	caller.ended(t)
	far.ended(t)
}

// The caller has said all that it will, and waits for an upstream that says nothing.
func TestATunnelThatIsHalfOverIsCut(t *testing.T) {
	leavesNothing(t)
	upstream, ends := switching(t, switched)
	b := start(t, nil, websockets(func(r *Route) { r.WebSocketIdle = 100 * time.Millisecond }), upstream)
	caller, far := b.tunnel(t), <-ends
	require.NoError(t, caller.Conn.(*net.TCPConn).CloseWrite())
	caller.ended(t)
	far.ended(t)
	b.closedBecause(t, byIdle)
}

func TestATunnelSaysNothingOfHowFastAnswersAre(t *testing.T) {
	b := start(t, echoing, websockets(nil))
	require.NoError(t, b.tunnel(t).Close())
	b.closedBecause(t, byPeers)
	families, err := b.registry.Gather()
	require.NoError(t, err)
	for _, family := range families {
		if family.GetName() == "bifrost_request_duration_seconds" {
			for _, series := range family.GetMetric() {
				require.Zero(t, series.GetHistogram().GetSampleCount())
			}
			return
		}
	}
	t.Fatal("there is no such metric")
}

func TestATunnelIsOneLineWithItsWholeDuration(t *testing.T) {
	b := start(t, echoing, websockets(func(r *Route) { r.WebSocketIdle = 200 * time.Millisecond }))
	caller := b.tunnel(t)
	caller.echoes(t)
	require.NotContains(t, b.logs.String(), `"msg":"request"`)
	require.Equal(t, 1.0, testutil.ToFloat64(b.proxy.metrics.inFlight))
	caller.ended(t)
	b.closedBecause(t, byIdle)
	require.GreaterOrEqual(t, b.events(t, 1)[0]["duration"], 0.2)
	require.Equal(t, 1, strings.Count(b.logs.String(), `"msg":"request"`))
	require.Contains(t, b.logs.String(), fmt.Sprintf(`"reason":%q`, byIdle))
}

// openTo is a bench with an open tunnel of acme's, whose fate the Broker's answer decides.
func openTo(t *testing.T) (*bench, end) {
	t.Helper()
	b := start(t, echoing, websockets(nil))
	caller := b.tunnel(t)
	caller.echoes(t)
	return b, caller
}

func TestATunnelEndsWithItsConnection(t *testing.T) {
	for name, answer := range map[string]func(context.Context, tokenstore.Slot) (authflow.Credential, error){
		"disconnected":            failing(&authflow.Error{Reason: authflow.ErrNotConnected}),
		"dead for requests":       failing(&authflow.Error{Reason: authflow.ErrReconnect}),
		"without an upstream":     failing(&authflow.Error{Reason: authflow.ErrUnresolved}),
		"of no integration":       failing(&authflow.Error{Reason: authflow.ErrUnknownIntegration}),
		"another since: global's": globalInstead,
	} {
		t.Run(name, func(t *testing.T) {
			b, caller := openTo(t)
			b.broker.answer(answer)
			caller.ended(t)
			b.closedBecause(t, byDisconnect)
		})
	}
}

func failing(err error) func(context.Context, tokenstore.Slot) (authflow.Credential, error) {
	return func(context.Context, tokenstore.Slot) (authflow.Credential, error) { return authflow.Credential{}, err }
}

func globalInstead(_ context.Context, slot tokenstore.Slot) (authflow.Credential, error) {
	slot.Org = tokenstore.Global
	return authflow.NewCredential(slot, tokenOf("global")), nil
}

func TestATunnelOutlivesATokenAndATroubleOfItsConnection(t *testing.T) {
	for name, answer := range map[string]func(context.Context, tokenstore.Slot) (authflow.Credential, error){
		"a refresh": func(_ context.Context, slot tokenstore.Slot) (authflow.Credential, error) {
			return authflow.NewCredential(slot, freshToken), nil
		},
		"the store is away":    failing(&authflow.Error{Reason: authflow.ErrStore}),
		"the provider is away": failing(&authflow.Error{Reason: authflow.ErrProvider}),
		"a refresh goes on":    failing(&authflow.Error{Reason: authflow.ErrPending}),
		"our client is wrong":  failing(&authflow.Error{Reason: authflow.ErrClient}),
		"no record to read":    failing(&authflow.Error{Reason: authflow.ErrUnreadable}),
		"nobody answers": func(ctx context.Context, _ tokenstore.Slot) (authflow.Credential, error) {
			<-ctx.Done()
			return authflow.Credential{}, ctx.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, caller := openTo(t)
			b.broker.answer(answer)
			asked := b.broker.asked.Load()
			require.Eventually(t, func() bool { return b.broker.asked.Load() >= asked+3 }, 10*time.Second, time.Millisecond)
			caller.echoes(t)
		})
	}
}

// One question is asked for all tunnels of a connection, and none where there is no tunnel.
func TestTheBrokerIsAskedOnlyForTunnels(t *testing.T) {
	b := start(t, echoing, websockets(nil))
	b.proxy.tunnels.askEvery = time.Hour
	for range 3 {
		b.tunnel(t)
	}
	asked := b.broker.asked.Load()
	b.proxy.tunnels.ask()
	require.Equal(t, asked+1, b.broker.asked.Load())

	quiet := start(t, echoing, websockets(nil))
	quiet.get(t, "/graph/plain")
	quiet.proxy.tunnels.ask()
	require.EqualValues(t, 1, quiet.broker.asked.Load())
}

func TestDrainWaitsForTunnelsAndClosesTheRest(t *testing.T) {
	leavesNothing(t)
	b := start(t, echoing, websockets(nil))
	require.Zero(t, b.proxy.tunnels.Drain(t.Context()), "there is nothing to wait for")
	caller := b.tunnel(t)
	over, cancel := context.WithCancel(t.Context())
	drained := make(chan int, 1)
	go func() { drained <- b.proxy.tunnels.Drain(over) }()
	caller.echoes(t)
	require.Empty(t, drained)
	cancel()
	require.Equal(t, 1, <-drained)
	require.Contains(t, b.logs.String(), `"msg":"request"`, "the request is over by now")
	require.Zero(t, testutil.ToFloat64(b.proxy.metrics.inFlight))
	caller.ended(t)
	b.closedBecause(t, byDrain)
	require.Equal(t, 503, b.raw(t, handshake).StatusCode, "no more are let in")
}

func TestDrainEndsWithTheLastTunnel(t *testing.T) {
	b := start(t, echoing, websockets(nil))
	first, last := b.tunnel(t), b.tunnel(t)
	drained := make(chan int, 1)
	go func() { drained <- b.proxy.tunnels.Drain(t.Context()) }()
	require.NoError(t, first.Close())
	last.echoes(t)
	require.Empty(t, drained)
	require.NoError(t, last.Close())
	require.Zero(t, <-drained)
}
