package proxy

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// How long what an issuer publishes is believed. A key that it withdraws is refused within two minutes.
const (
	keysFresh = time.Minute      // then its keys are read again, behind the request that noticed
	keysIdle  = 2 * time.Minute  // without an attempt to read them: then a request waits for one
	keysLast  = 24 * time.Hour   // without a successful one: then they are not believed any more
	keysPause = 10 * time.Second // between two attempts, and between two for keys that are not known
	keysTime  = 5 * time.Second  // for one attempt, discovery included

	maxKeyWaits = 1000 // requests that wait for one issuer: an attacker's tokens must not hold all that the process takes
)

// KeySets are the public keys of the issuers of JWTs, read when they are first needed. They are shared by the Proxies that
// follow one another on a reload, so that a reload forgets no key. All methods may be called concurrently.
type KeySets struct {
	log     *slog.Logger
	fetches *prometheus.CounterVec
	client  *http.Client
	start   time.Time // by which due times are told, so that a clock that is set does not move them

	running sync.WaitGroup // the reads under way
	mu      sync.Mutex     // guards sets
	sets    map[keySource]*keySet
}

// keySource is where an issuer's keys are found: at url, or if that is empty by discovery.
type keySource struct{ issuer, url string }

// NewKeySets registers their metric with reg; nil registers it nowhere. A nil log discards.
func NewKeySets(reg prometheus.Registerer, log *slog.Logger) *KeySets {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &KeySets{
		log: log,
		fetches: promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
			Name: "bifrost_jwks_fetches_total",
			Help: "Reads of the keys of an issuer of caller_jwt, by result: ok or failed.",
		}, []string{"issuer", "result"}),
		client: newKeyClient(newKeyTransport()),
		start:  time.Now(),
		sets:   make(map[keySource]*keySet),
	}
}

// Close waits for the reads under way, 5 s at most. It is called when no request is left.
func (ks *KeySets) Close() {
	ks.running.Wait()
	ks.client.CloseIdleConnections()
}

// set returns the keys of an issuer, those that are known already if it was there before.
func (ks *KeySets) set(from keySource) *keySet {
	ks.mu.Lock()
	defer ks.mu.Unlock()
	s := ks.sets[from]
	if s == nil {
		s = &keySet{of: ks, from: from}
		ks.sets[from] = s
		for _, result := range []string{"ok", "failed"} {
			ks.fetches.WithLabelValues(from.issuer, result)
		}
	}
	return s
}

// keySet are the keys of one issuer.
type keySet struct {
	of      *KeySets
	from    keySource
	known   atomic.Pointer[publishedKeys] // nil: none yet
	due     atomic.Int64                  // since of.start: when they are read again behind a request
	waiting atomic.Int64

	mu      sync.Mutex    // guards all below
	reading chan struct{} // closed when the read under way ends; nil: there is none
	tried   time.Time     // when the last read began
	sought  time.Time     // when the last read for a key that was not known began
	failing bool          // the last read failed
	told    time.Time     // when that was logged
}

// publishedKeys are an issuer's keys at one time.
type publishedKeys struct {
	list []*publicKey
	read time.Time
}

// find returns the keys with which a token of this kid and algorithm may have been signed; none if there are none, or if they
// cannot be read. A token without a kid is taken if only one key fits.
func (s *keySet) find(ctx context.Context, kid, algorithm string, now time.Time) []*publicKey {
	if s.known.Load() == nil || s.idle(now) {
		s.wait(ctx, s.read(now, false))
	} else {
		s.renew(now)
	}
	known := s.known.Load()
	if known == nil || now.Sub(known.read) > keysLast {
		return nil
	}
	if found := known.match(kid, algorithm); len(found) > 0 {
		return found
	}
	if !s.wait(ctx, s.read(now, true)) {
		return nil
	}
	return s.known.Load().match(kid, algorithm)
}

func (p *publishedKeys) match(kid, algorithm string) []*publicKey {
	var found []*publicKey
	for _, k := range p.list {
		if (kid == "" || k.id == kid) && k.signs(algorithm) {
			found = append(found, k)
		}
	}
	if kid == "" && len(found) > 1 {
		return nil
	}
	return found
}

// renew has the keys read again where they are due, behind the request.
func (s *keySet) renew(now time.Time) {
	if int64(now.Sub(s.of.start)) >= s.due.Load() && s.known.Load() != nil {
		s.read(now, false)
	}
}

// idle reports whether nobody has tried to read the keys for so long that they cannot be believed unread.
func (s *keySet) idle(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return now.Sub(s.tried) > keysIdle
}

// read begins a read unless one is under way, and returns what is closed at its end; nil where it is too early for another.
// unknown says that it is for a key that is not known: that need not wait for the pause after a read that was merely due.
func (s *keySet) read(now time.Time, unknown bool) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.tried
	if unknown {
		last = s.sought
	}
	switch {
	case s.reading != nil:
		return s.reading
	case now.Sub(last) < keysPause:
		return nil
	case unknown:
		s.sought = now
	}
	s.tried = now
	s.due.Store(int64(now.Add(keysPause).Sub(s.of.start)))
	done := make(chan struct{})
	s.reading = done
	s.of.running.Go(func() { // ends within keysTime
		s.take(s.of.fetch(s.from))
		s.mu.Lock()
		s.reading = nil
		s.mu.Unlock()
		close(done)
	})
	return done
}

// wait waits for a read to end, and reports whether it did.
func (s *keySet) wait(ctx context.Context, done <-chan struct{}) bool {
	if done == nil || s.waiting.Add(1) > maxKeyWaits {
		if done != nil {
			s.waiting.Add(-1)
		}
		return false
	}
	defer s.waiting.Add(-1)
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

// take makes what was read known. Keys that are published still stay the ones they were; the others are gone, and with them
// what was verified by them.
func (s *keySet) take(fresh []*publicKey, err error) {
	now := time.Now()
	if err != nil {
		s.of.fetches.WithLabelValues(s.from.issuer, "failed").Inc()
		s.tell(err, now)
		return
	}
	s.of.fetches.WithLabelValues(s.from.issuer, "ok").Inc()
	if old := s.known.Load(); old != nil {
		keepSame(old.list, fresh)
	}
	s.known.Store(&publishedKeys{fresh, now})
	s.due.Store(int64(now.Add(keysFresh).Sub(s.of.start)))
	s.tell(nil, now)
}

// keepSame puts the old keys in the place of the fresh ones that are the same, and marks those that are not there any more.
func keepSame(old, fresh []*publicKey) {
	for _, k := range old {
		at := slices.IndexFunc(fresh, k.same)
		if at < 0 {
			k.gone.Store(true)
			continue
		}
		fresh[at] = k
	}
}

// tell logs that reads fail, once a minute, and that they do no more.
func (s *keySet) tell(err error, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	recovered := s.failing && err == nil
	s.failing = err != nil
	switch {
	case recovered:
		s.of.log.Info("the keys of an issuer of caller_jwt can be read again", "issuer", s.from.issuer)
	case err != nil && now.Sub(s.told) >= time.Minute:
		s.told = now
		since := "never"
		if known := s.known.Load(); known != nil {
			since = known.read.UTC().Format(time.RFC3339)
		}
		s.of.log.Warn("the keys of an issuer of caller_jwt cannot be read: those known are used for a day, JWTs by others are refused",
			"issuer", s.from.issuer, "problem", keyProblem(err), "last_read", since)
	}
}
