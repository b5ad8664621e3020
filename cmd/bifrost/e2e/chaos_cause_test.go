package e2e_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

const (
	lagTime  = 2 * time.Second // how much before a failover was begun what Redis acknowledged may be lost by it
	lateTime = 5 * time.Second // how long after it an old primary may have gone on acknowledging
	keepTime = time.Second     // between an answer and its being stored, on a busy machine
)

// explain finds the POST whose outcome is missing in the store, and proves why.
func (v *chaosVerdict) explain(org string, rec *tokenstore.Record) (chaosLoss, bool) {
	first, again := v.missing(org, rec)
	if at, was := v.revoked[org]; was && (again == nil || again.processed.After(at)) {
		return chaosLoss{at, refused, "at " + v.chaos.timeline.since(at)}, true
	}
	if first == nil {
		return chaosLoss{at: v.lastPost(org), proof: "no refresh is missing in the store"}, false
	}
	until := time.Now()
	if again != nil {
		until = again.began
	}
	loss := chaosLoss{at: first.began}
	proven := v.proveCrash(&loss, first, until) || v.proveWriteLost(&loss, first, again, until)
	if !proven {
		loss.proof = fmt.Sprintf("%s got a token at %s that the store does not have", first.node, v.chaos.timeline.since(first.processed))
	}
	return loss, proven
}

// missing returns the first POST of a refresh token that came twice, and the second; or the one whose outcome is not stored.
func (v *chaosVerdict) missing(org string, rec *tokenstore.Record) (first, again *chaosPost) {
	spent := map[string]*chaosPost{}
	for _, post := range v.posts[org] {
		switch {
		case post.processed.IsZero():
		case spent[post.token] != nil:
			first, again = spent[post.token], post
			if again.processed.Before(first.processed) {
				first, again = again, first
			}
			return first, again
		default:
			spent[post.token] = post
		}
	}
	if rec != nil {
		return spent[rec.Token.Refresh], nil
	}
	return nil, nil
}

func (v *chaosVerdict) lastPost(org string) (last time.Time) {
	for _, post := range v.posts[org] {
		last = post.began
	}
	return last
}

// acknowledgement returns when the poster logged that the outcome of its POST was stored, if it did before the token was
// POSTed again.
func (v *chaosVerdict) acknowledgement(post *chaosPost, until time.Time) (time.Time, bool) {
	for _, l := range v.logs[post.org] {
		// The provider's first token was imported: its generation is one higher than ours.
		if l.node == post.node && strings.Contains(l.text, stored) && l.generation == int64(post.generation) && l.at.After(post.began) && l.at.Before(until) {
			return l.at, true
		}
	}
	return time.Time{}, false
}

// proveWriteLost proves that a failover lost the token that was stored, or the Intent that had been stored before the POST.
func (v *chaosVerdict) proveWriteLost(loss *chaosLoss, first, again *chaosPost, until time.Time) bool {
	at, acknowledged := v.acknowledgement(first, until)
	what := "the token"
	if !acknowledged {
		at, what = first.began, "the announcement of the POST"
		if again == nil {
			return false // nobody has POSTed what it should have kept from being POSTed
		}
	}
	for _, o := range v.chaos.timeline.outages {
		if !strings.HasPrefix(o.what, "failover") || o.over.IsZero() {
			continue
		}
		if at.After(o.from.Add(-lagTime)) && at.Before(o.over.Add(lateTime)) && o.from.Before(until) {
			loss.cause = writeLost
			loss.proof = fmt.Sprintf("%s had %s stored at %s, and %q was going on", first.node, what, v.chaos.timeline.since(at), o.what)
			return true
		}
	}
	return false
}

// proveCrash proves that the poster was killed, or stood still for longer than its Intent lasts, before it could store the
// answer.
func (v *chaosVerdict) proveCrash(loss *chaosLoss, first *chaosPost, until time.Time) bool {
	if _, acknowledged := v.acknowledgement(first, until); acknowledged || first.status != 200 {
		return false
	}
	life := v.lifeOf(first)
	if life == nil {
		return false
	}
	since := v.chaos.timeline.since
	waited := first.delivered && life.ended.Sub(first.ended) > keepTime
	if life.how == "killed" && life.ended.After(first.began) && (!waited || v.unstored(first)) {
		loss.cause = crashWindow
		loss.proof = fmt.Sprintf("%s POSTed at %s, the provider processed it at %s, killed at %s", first.node, since(first.began),
			since(first.processed), since(life.ended))
		return true
	}
	for _, o := range v.chaos.timeline.outages {
		if o.node == first.node && strings.Contains(o.what, "stands still") && o.from.Before(until) &&
			o.from.After(first.began) && o.over.After(first.began.Add(holdTime-keepTime)) {
			loss.cause = crashWindow
			loss.proof = fmt.Sprintf("%s POSTed at %s and stood still from %s to %s, longer than its announcement lasts", first.node,
				since(first.began), since(o.from), since(o.over))
			return true
		}
	}
	return false
}

// lifeOf returns the process that made a POST.
func (v *chaosVerdict) lifeOf(post *chaosPost) *chaosLife {
	for _, n := range v.nodes {
		for _, life := range n.lives {
			if n.name == post.node && life.began.Before(post.began) && (life.ended.IsZero() || life.ended.Add(keepTime).After(post.began)) {
				return life
			}
		}
	}
	return nil
}

// unstored tells whether the poster was still trying to store the outcome when it was last heard of.
func (v *chaosVerdict) unstored(post *chaosPost) bool {
	open := false
	for _, l := range v.logs[post.org] {
		if l.node != post.node || l.at.Before(post.began) {
			continue
		}
		if strings.Contains(l.text, "cannot be stored") {
			open = true
		}
		if strings.Contains(l.text, "the token is stored") {
			open = false
		}
	}
	return open
}
