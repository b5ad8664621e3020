package e2e_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// The causes for which a connection may be lost. Everything else is a fault of bifrost, or of this test.
const (
	refused     = "the provider refused: the user had revoked the grant"
	crashWindow = "the crash window: the provider had answered, and the poster died before the answer was stored"
	writeLost   = "a write that Redis acknowledged was lost in a failover"
)

// chaosVerdict judges the run by what the provider, the clients, the logs and the store know of it.
type chaosVerdict struct {
	*chaos
	posts map[string][]*chaosPost // by org, oldest first
	logs  map[string][]chaosLog   // by org
	lost  map[string]chaosLoss    // by org
	saved map[string]*tokenstore.Record
}

// chaosLog is a line of a process's log about one connection.
type chaosLog struct {
	at         time.Time
	node       string
	text       string
	generation int64 // 0: it tells none
}

// chaosLoss is why a connection was lost.
type chaosLoss struct {
	at           time.Time
	cause, proof string
}

// stored is what a process logs when Redis has acknowledged a refreshed token.
const stored = "a token was refreshed"

func (c *chaos) newVerdict() *chaosVerdict {
	v := &chaosVerdict{chaos: c, posts: map[string][]*chaosPost{}, logs: map[string][]chaosLog{}, lost: map[string]chaosLoss{},
		saved: map[string]*tokenstore.Record{}}
	for _, post := range c.idp.posts {
		v.posts[post.org] = append(v.posts[post.org], post)
	}
	for _, n := range c.nodes {
		for _, life := range n.lives {
			v.readLog(n.name, life.stderr.String())
		}
	}
	for _, logs := range v.logs {
		slices.SortFunc(logs, func(a, b chaosLog) int { return a.at.Compare(b.at) })
	}
	return v
}

func (v *chaosVerdict) readLog(node, text string) {
	for line := range strings.Lines(text) {
		var entry struct {
			Time                   time.Time
			Level, Msg             string
			Org, Connection, Error string
			Generation             int64
		}
		if json.Unmarshal([]byte(line), &entry) != nil {
			continue // not of slog; processes has a look at all of it
		}
		org := entry.Org
		if org == "" {
			org = strings.TrimPrefix(entry.Connection, "graph/")
		}
		text := entry.Level + " " + entry.Msg
		if entry.Generation > 0 {
			text += fmt.Sprintf(" (generation %d)", entry.Generation)
		}
		if entry.Error != "" {
			text += ": " + entry.Error
		}
		v.logs[org] = append(v.logs[org], chaosLog{entry.Time, node, text, entry.Generation})
	}
}

// timeline prints what was done.
func (v *chaosVerdict) timeline() {
	v.t.Log("the timeline:")
	for _, e := range v.chaos.timeline.entries {
		v.t.Logf("  %s %s", v.chaos.timeline.since(e.at), e.text)
	}
}

// connections looks at every connection in the store and at the provider, and wants a proven cause for each that is lost.
func (v *chaosVerdict) connections() {
	v.t.Helper()
	store := v.store()
	defer func() { v.check(store.Close()) }()
	causes := map[string]int{}
	for _, org := range v.orgs {
		rec, err := store.Get(v.t.Context(), tokenstore.Slot{Integration: "graph", Org: tokenstore.Org(org)})
		v.saved[org] = rec
		if err == nil && v.healthy(rec) {
			continue
		}
		loss, proven := v.explain(org, rec)
		v.lost[org] = loss
		if !proven {
			v.t.Errorf("%s is lost, and no cause is proven: %s\n%s", org, loss.proof, v.history(org))
			continue
		}
		causes[loss.cause]++
		v.t.Logf("%s needs a new consent since %s. %s: %s", org, v.chaos.timeline.since(loss.at), loss.cause, loss.proof)
		if loss.cause == writeLost {
			v.t.Logf("the history of %s\n%s", org, v.history(org)) // a poster that lives should have written it back
		}
	}
	for _, reuse := range v.idp.Reuses() {
		if _, known := v.lost[reuse.Token.User]; !known {
			v.t.Errorf("a refresh token came twice for no reason\n%s", v.history(reuse.Token.User))
		}
	}
	v.t.Logf("connections: %d, of which %d are lost", len(v.orgs), len(v.lost))
	for _, cause := range slices.Sorted(maps.Keys(causes)) {
		v.t.Logf("  %3d %s", causes[cause], cause)
	}
	acknowledged := v.acknowledged()
	v.t.Logf("refreshes: %d POSTs, %d acknowledged by the store", len(v.idp.posts), acknowledged)
	if acknowledged < (len(v.idp.posts)-len(v.orgs))/2 { // an import is no refresh
		v.t.Error("the logs do not tell what the store acknowledged: no crash is proven without that")
	}
}

// healthy tells whether the stored token is the one with which the provider goes on.
func (v *chaosVerdict) healthy(rec *tokenstore.Record) bool {
	token, known := v.idp.Lookup(rec.Token.Refresh)
	if !known || !v.idp.GrantAlive(token.Grant) || rec.Failure != nil && rec.Failure.Dead {
		return false
	}
	newest, _ := v.idp.Newest(token.Grant)
	return newest.Refresh == rec.Token.Refresh
}

func (v *chaosVerdict) acknowledged() int {
	n := 0
	for _, logs := range v.logs {
		for _, l := range logs {
			if strings.Contains(l.text, stored) {
				n++
			}
		}
	}
	return n
}

// history tells all that is known of a connection.
func (v *chaosVerdict) history(org string) string {
	since := v.chaos.timeline.since
	var all []entry
	for _, post := range v.posts[org] {
		text := fmt.Sprintf("%s POSTs refresh token %d", post.node, post.generation)
		switch {
		case post.processed.IsZero():
			text += ", which never arrives"
		case post.delivered:
			text += fmt.Sprintf(": processed at %s, %d, answered at %s", since(post.processed), post.status, since(post.ended))
		default:
			text += fmt.Sprintf(": processed at %s, %d, and the answer reaches nobody", since(post.processed), post.status)
		}
		all = append(all, entry{post.began, text})
	}
	for _, l := range v.logs[org] {
		all = append(all, entry{l.at, l.node + " logs " + l.text})
	}
	if at, was := v.revoked[org]; was {
		all = append(all, entry{at, "the user revokes the grant"})
	}
	all = append(all, v.chaos.timeline.entries...)
	slices.SortStableFunc(all, func(a, b entry) int { return a.at.Compare(b.at) })
	if loss, is := v.lost[org]; is && !loss.at.IsZero() {
		all = slices.DeleteFunc(all, func(e entry) bool {
			return e.at.Before(loss.at.Add(-15*time.Second)) || e.at.After(loss.at.Add(20*time.Second))
		})
	}
	var b strings.Builder
	for _, e := range all {
		fmt.Fprintf(&b, "  %s %s\n", since(e.at), e.text)
	}
	if rec := v.saved[org]; rec != nil {
		token, _ := v.idp.Lookup(rec.Token.Refresh)
		fmt.Fprintf(&b, "  stored: generation %d (refresh token %d of the provider's), intent %t, failure %+v, grant alive %t\n",
			rec.Generation, token.Generation, rec.Intent != nil, rec.Failure, v.idp.GrantAlive(token.Grant))
	}
	return b.String()
}
