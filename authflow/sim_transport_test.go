package authflow_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

// simPost is one POST of a refresh token, as an onlooker knows it who sees both ends.
type simPost struct {
	id       int
	who      *simReplica
	refresh  string
	grant    string // the provider's
	sent     time.Duration
	deadline time.Duration // its sender waits no longer
	fault    string        // what went wrong on purpose

	processed time.Duration // 0: never
	issued    string        // the refresh token that it was redeemed for; empty: it was refused
	ended     time.Duration // when the replica had the outcome; 0: not yet
	outcome   simOutcome
}

// simOutcome is what a replica knows of a POST that it made.
type simOutcome string

const (
	onItsWay simOutcome = "on its way"
	granted  simOutcome = "granted"
	refused  simOutcome = "refused"     // definitely: the grant is dead
	passing  simOutcome = "put off"     // it certainly was not processed
	unknown  simOutcome = "no answer"   // or one that says nothing
	silenced simOutcome = "sender died" // before it had the outcome
)

const simHeader = "X-Sim-Post"

// simTransport is the network between a replica and the provider.
type simTransport struct{ r *simReplica }

// RoundTrip implements [http.RoundTripper].
func (t simTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	r, ctx := t.r, req.Context()
	began := r.now()
	if !r.step("post") {
		return nil, errSimDead
	}
	r.stall()
	raw, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(raw))
	if err != nil {
		return nil, err
	}
	out := req.Clone(ctx)
	out.Body = io.NopCloser(strings.NewReader(string(raw)))
	if err := ctx.Err(); err != nil {
		return nil, err // net/http sends nothing then
	}
	if r.chance("unreachable", r.plan.hostile/8) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	if form.Get("grant_type") != "refresh_token" {
		return r.provider.Transport().RoundTrip(out)
	}
	refresh := form.Get("refresh_token")
	p, b := t.sends(refresh, r.declared(refresh, began)+r.plan.postTime())
	out.Header.Set(simHeader, strconv.Itoa(p.id))
	r.provider.Misbehave(b)
	res, err := t.answer(ctx, out, p)
	if !r.step("post") {
		r.note(simEvent{what: "dies with an answer unread", who: r, post: p})
		return nil, t.ends(p, silenced, errSimDead)
	}
	if err != nil {
		return nil, t.ends(p, unknown, err)
	}
	if res, err = t.reads(p, res); p.outcome == granted {
		r.strikes(whenAnswered)
	} else {
		r.strikes(whenPutOff)
	}
	r.stall()
	return res, err
}

// sends takes the POST down and draws how the provider and the network treat it.
func (t simTransport) sends(refresh string, deadline time.Duration) (*simPost, authflowtest.Behaviour) {
	r := t.r
	token, _ := r.provider.Lookup(refresh)
	p := &simPost{who: r, refresh: refresh, grant: token.Grant, outcome: onItsWay, deadline: deadline}
	b := t.draw(p)
	r.mu.Lock()
	p.id, p.sent = len(r.posts)+1, r.now()
	r.posts = append(r.posts, p)
	r.failOverAfterLocked(p.id)
	r.noteLocked(simEvent{what: "POSTs", who: r, post: p, text: p.fault})
	r.mu.Unlock()
	b.When = func(post authflowtest.Post) bool { return post.Header.Get(simHeader) == strconv.Itoa(p.id) }
	garble := b.Rewrite
	b.Rewrite = func(a *authflowtest.Answer) {
		t.processed(p, a)
		if garble != nil {
			garble(a)
		}
	}
	return p, b
}

// declared returns when the replica last wrote down an Intent for the token: its time to POST counts from then.
func (r *simReplica) declared(refresh string, otherwise time.Duration) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range slices.Backward(r.events) {
		if e.what == simSaves && e.who == r && e.rec.Token.Refresh == refresh && e.rec.Intent != nil {
			return e.at
		}
	}
	return otherwise
}

// processed notes what the provider did, whoever hears of it.
func (t simTransport) processed(p *simPost, a *authflowtest.Answer) {
	var answer struct {
		Refresh string `json:"refresh_token"`
	}
	_ = json.Unmarshal(a.Body, &answer) // a refusal has none
	p.who.mu.Lock()
	defer p.who.mu.Unlock()
	p.processed, p.issued = p.who.now(), answer.Refresh
	p.who.noteLocked(simEvent{what: "the provider processes", post: p, who: p.who})
}

// draw decides on a fault. Answers that are merely late come before the POST's deadline, unless the network may destroy them.
func (t simTransport) draw(p *simPost) (b authflowtest.Behaviour) {
	r := t.r
	left := p.deadline - r.now() - 3*time.Second // the time to declare the Intent and to look at the lease counts too
	late := r.between("latency", time.Millisecond, 300*time.Millisecond)
	if r.chance("slow", 0.1) {
		late = r.between("latency", time.Second, 25*time.Second)
		p.fault = "slow by " + late.Round(time.Millisecond).String()
	}
	if !r.plan.destroys {
		late = max(min(late, left), 0)
	}
	if r.one("where", 2) == 0 {
		b.Before = late
	} else {
		b.After = late
	}
	if !r.chance("hostile", r.plan.hostile) {
		return b
	}
	kinds := []string{"drop before", "503", "429", "temporarily_unavailable", "invalid_client", "403 page", "redirect"}
	if r.plan.destroys {
		kinds = append(kinds, "drop after", "drop after", "cut", "no token", "garbled", "500 after")
	}
	p.fault = kinds[r.one("kind", len(kinds))]
	switch p.fault {
	case "drop before":
		b.DropBefore = true
	case "503":
		b.Instead = authflowtest.Status(503, "").Instead
	case "429":
		b.Instead = authflowtest.Status(429, strconv.Itoa(1+r.one("retry after", 30))).Instead
	case "temporarily_unavailable", "invalid_client":
		b.Instead = authflowtest.OAuthError(400, p.fault).Instead
	case "403 page":
		b.Instead = authflowtest.HTML(403).Instead
	case "redirect":
		b.Instead = authflowtest.Redirect(307, "https://elsewhere.test/").Instead
	case "drop after":
		b.DropAfter = true
	case "cut":
		b.Cut = true
	case "no token":
		b.Rewrite = authflowtest.Without("access_token").Rewrite
	case "garbled":
		b.Rewrite = authflowtest.Truncate(20).Rewrite
	case "500 after":
		b.Rewrite = func(a *authflowtest.Answer) { *a = *authflowtest.Status(500, "").Instead }
	}
	return b
}

// answer waits for what comes back. A replica that stands still finds the answer when it goes on, though its deadline has
// passed; where the network destroys answers, it may find the deadline first.
func (t simTransport) answer(ctx context.Context, out *http.Request, p *simPost) (*http.Response, error) {
	type arrived struct {
		res *http.Response
		err error
	}
	came := make(chan arrived, 1)
	go func() {
		res, err := t.r.provider.Transport().RoundTrip(out.WithContext(context.WithoutCancel(ctx)))
		came <- arrived{res, err}
	}()
	select {
	case a := <-came:
		t.r.stall()
		if ctx.Err() != nil && t.r.plan.destroys && t.r.one("woken", 2) == 0 {
			return nil, ctx.Err()
		}
		return a.res, a.err
	case <-ctx.Done():
	}
	t.r.stall()
	if !t.r.plan.destroys || t.r.one("woken", 2) == 0 {
		select {
		case a := <-came:
			return a.res, a.err
		default:
		}
	}
	return nil, ctx.Err()
}

// reads notes what the answer tells the replica.
func (t simTransport) reads(p *simPost, res *http.Response) (*http.Response, error) {
	raw, err := io.ReadAll(res.Body)
	body := string(raw)
	outcome := unknown
	switch {
	case err != nil:
		res.Body = io.NopCloser(io.MultiReader(strings.NewReader(body), simBroken{}))
		return res, t.ends(p, unknown, nil)
	case res.StatusCode == 200 && strings.Contains(body, `"access_token"`) && json.Valid(raw):
		outcome = granted
	case strings.Contains(body, "invalid_grant"):
		outcome = refused
	case res.StatusCode >= 300 && res.StatusCode < 500:
		outcome = passing
	case p.who.plan.class == authflow.Reusable:
		outcome = passing
	}
	res.Body = io.NopCloser(strings.NewReader(body))
	return res, t.ends(p, outcome, nil)
}

type simBroken struct{}

func (simBroken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// ends notes the outcome, and returns err.
func (t simTransport) ends(p *simPost, outcome simOutcome, err error) error {
	t.r.mu.Lock()
	defer t.r.mu.Unlock()
	p.ended, p.outcome = t.r.now(), outcome
	t.r.noteLocked(simEvent{what: "has an outcome", who: t.r, post: p, text: string(outcome)})
	return err
}
