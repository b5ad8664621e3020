package authflow_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// simEvent is one line of an episode's history.
type simEvent struct {
	at   time.Duration
	what string
	who  *simReplica // nil: nobody's doing
	slot tokenstore.Slot
	text string

	post        *simPost
	rec, before *tokenstore.Record // what a save stored, and in place of what; what a failover left, and took away
}

const (
	simSaves   = "saves"
	simDeletes = "deletes"
	simForced  = "is asked to refresh"
	simLoses   = "the store fails over"
)

// simServe is one request that got a token.
type simServe struct {
	who          *simReplica
	slot         tokenstore.Slot
	asked, at    time.Duration
	grant        int // its place among the consents of the org
	generation   int
	alive, right bool // the provider accepts the token; it is the org's own
}

func (s *simulation) note(e simEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noteLocked(e)
}

func (s *simulation) noteLocked(e simEvent) {
	e.at = s.now()
	s.events = append(s.events, e)
}

// save stores a record for a replica and notes it, as one step.
func (s *simulation) save(ctx context.Context, who *simReplica, slot tokenstore.Slot, rec *tokenstore.Record, prev tokenstore.Version) (simMoment, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.memory.Peeked(slot)
	err := s.memory.Save(ctx, slot, rec, prev)
	if err == nil {
		now := s.memory.Peeked(slot)
		s.holders[now.Write] = append(s.holders[now.Write], who)
		s.noteLocked(simEvent{what: simSaves, who: who, slot: slot, rec: now, before: before})
	}
	switch {
	case err != nil || before == nil || before.Grant != rec.Grant:
	case rec.Generation > before.Generation:
		return whenStored, nil
	case rec.Intent != nil && (before.Intent == nil || before.Intent.Holder != rec.Intent.Holder):
		return whenDeclared, nil
	}
	return "", err
}

// remove deletes a record for a replica and notes it, as one step.
func (s *simulation) remove(ctx context.Context, who *simReplica, slot tokenstore.Slot, prev tokenstore.Version) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.memory.Peeked(slot)
	err := s.memory.Delete(ctx, slot, prev)
	if err == nil {
		s.noteLocked(simEvent{what: simDeletes, who: who, slot: slot, before: before})
	}
	return err
}

// failOver has the store lose what is young, and notes what it lost.
func (s *simulation) failOver(lost time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := map[tokenstore.Org]*tokenstore.Record{}
	for _, org := range s.plan.orgs {
		before[org] = s.memory.Peeked(slot(org))
	}
	s.memory.FailOver(lost)
	for _, org := range s.plan.orgs {
		s.noteLocked(simEvent{
			what: simLoses, slot: slot(org), before: before[org], rec: s.memory.Peeked(slot(org)), text: lost.String(),
		})
	}
}

// failOverAfterLocked lets the failovers take their course that come after so many POSTs.
func (s *simulation) failOverAfterLocked(posts int) {
	for _, f := range s.plan.failovers {
		if f.n == posts {
			s.backgroundLocked(func() {
				pass(f.at)
				if s.now() < s.plan.span {
					s.failOver(f.lost)
				}
			})
		}
	}
}

// learns notes that a replica has read a record.
func (s *simulation) learns(who *simReplica, rec *tokenstore.Record) {
	if rec == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.holders[rec.Write], who) {
		s.holders[rec.Write] = append(s.holders[rec.Write], who)
	}
}

// String is the event as a line that a person can follow.
func (s *simulation) line(e simEvent) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%11.3fs ", e.at.Seconds())
	if e.who != nil {
		fmt.Fprintf(&b, "%-4v ", e.who)
	} else {
		b.WriteString("     ")
	}
	b.WriteString(e.what)
	if e.slot.Org != "" {
		fmt.Fprintf(&b, " [%s]", e.slot.Org)
	}
	if e.rec != nil || e.before != nil {
		fmt.Fprintf(&b, " %s", s.record(e.rec))
	}
	if e.before != nil && e.what == simLoses {
		fmt.Fprintf(&b, " <- lost %s", s.record(e.before))
	}
	if p := e.post; p != nil {
		fmt.Fprintf(&b, " #%d of %s", p.id, s.name(p.refresh))
		if p.issued != "" {
			fmt.Fprintf(&b, " -> %s", s.name(p.issued))
		}
	}
	if e.text != "" {
		b.WriteString(": " + e.text)
	}
	return b.String()
}

// record is what matters of a record.
func (s *simulation) record(rec *tokenstore.Record) string {
	if rec == nil {
		return "nothing"
	}
	out := fmt.Sprintf("%s g%d rev%d", s.name(rec.Token.Refresh), rec.Generation, rec.Revision)
	if rec.Suspect {
		out += " suspect"
	}
	if i := rec.Intent; i != nil {
		out += fmt.Sprintf(" intent(fence %d, until %.1fs)", i.Fence%1e6, i.Deadline.Sub(s.began).Seconds())
	}
	if f := rec.Failure; f != nil {
		out += fmt.Sprintf(" failure(%s, %d", f.Code, f.Attempts)
		if f.Dead {
			out += ", DEAD"
		}
		out += ")"
	}
	return out + fmt.Sprintf(" expires %.0fs due %.0fs", rec.Token.Expiry.Sub(s.began).Seconds(), rec.Due.Sub(s.began).Seconds())
}

// name is a refresh token's short name: whose, of which consent and generation.
func (s *simulation) name(refresh string) string {
	token, known := s.provider.Lookup(refresh)
	if !known {
		return "?"
	}
	return fmt.Sprintf("%s/%d.%d", token.User, s.consent(token), token.Generation)
}

// history is everything that happened.
func (s *simulation) history() string {
	var b strings.Builder
	p := s.plan
	fmt.Fprintf(&b, "class %s grace %v life %v dies %v sweeping %v crashes %v destroys %v span %v noise %v hostile %v\nskew %v jump %v\n",
		p.class, p.grace, p.life, p.dies, p.sweeping, p.crashes, p.destroys, p.span, p.noise, p.hostile, p.skew, p.jump)
	fmt.Fprintf(&b, "pauses %v\ncuts %v\noutages %v\nfailovers %v\n", s.pauses, s.cuts, s.outages, p.failovers)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		b.WriteString(s.line(e) + "\n")
	}
	return b.String()
}
