package e2e_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	wanted         = 0.999                   // of the requests outside the outages
	dueAge         = 2300 * time.Millisecond // a token of tokenLife is refreshed when it is older; a little earlier, for clocks
	mostGoroutines = 3*requestsMost + 500
	mostMemory     = 400 << 10 // KiB, resident
	fewFailures    = 5         // a busy machine may cause them; in a short run few requests count
	mostFailures   = 30        // printed
)

// availability counts the requests for healthy connections outside the announced outages.
func (v *chaosVerdict) availability() {
	v.t.Helper()
	outages := append(slices.Clone(v.chaos.timeline.outages), v.holds()...)
	byOrg := map[string][]*chaosOutage{}
	for _, o := range outages {
		byOrg[o.org] = append(byOrg[o.org], o)
	}
	counted, good, all := 0, 0, 0
	codes, excused := map[string]int{}, map[string]int{}
	var failures []string
	for i := range v.requests {
		r := &v.requests[i]
		all++
		touches := func(o *chaosOutage) bool { return o.excuses(r) }
		loss, isLost := v.lost[r.org]
		if isLost && !r.ended.Before(loss.at) || slices.ContainsFunc(byOrg[""], touches) || slices.ContainsFunc(byOrg[r.org], touches) {
			excused[r.outcome]++
			continue
		}
		counted++
		if r.outcome == "200" {
			good++
			continue
		}
		codes[r.outcome]++
		failures = append(failures, fmt.Sprintf("%s to %s: %s for %s: %s", v.chaos.timeline.since(r.began), v.chaos.timeline.since(r.ended), r.node, r.org, r.outcome))
	}
	share := float64(good) / float64(max(counted, 1))
	v.t.Logf("requests: %d, of which %d for healthy connections outside the outages: %.3f %% successful", all, counted, 100*share)
	for _, code := range slices.Sorted(maps.Keys(codes)) {
		v.t.Logf("  %5d %s", codes[code], code)
	}
	v.t.Logf("  the others, in outages or after a loss: %v", excused)
	for _, failure := range failures[:min(mostFailures, len(failures))] {
		v.t.Log("  failed:", failure)
	}
	if share < wanted && len(failures) > fewFailures {
		v.t.Errorf("only %.3f %% of the requests were successful", 100*share)
	}
	if counted < all/10 && *chaosOnly == "" && *chaosTime >= time.Minute {
		v.t.Errorf("only %d of %d requests count: the outages cover everything", counted, all)
	}
}

// holds are the outages of single connections, at every replica, that follow from those of a replica: what it was refreshing
// when it was killed, stopped or cut off is left alone by the others until its lease and its announcement have run out.
func (v *chaosVerdict) holds() []*chaosOutage {
	var found []*chaosOutage
	for _, o := range v.chaos.timeline.outages {
		if o.node == "" || strings.Contains(o.what, "terminated") || strings.Contains(o.what, "closed") {
			continue
		}
		for org, posts := range v.posts {
			var last time.Time // refreshed
			open := false
			for _, post := range posts {
				if post.status == 200 && post.processed.Before(o.from) {
					last = post.processed
				}
				inside := post.node == o.node && post.began.Before(o.over) && (post.ended.IsZero() || post.ended.After(o.from.Add(-keepTime)))
				if inside && (post.began.After(o.from.Add(-tokenTime)) || post.began.After(o.from)) {
					open = true
					found = append(found, &chaosOutage{what: o.what, org: org, from: o.from, until: later(post.began.Add(takeoverTime), o.over.Add(storeBack))})
				}
			}
			if !open && o.from.Sub(last) > dueAge && !strings.Contains(o.what, "the provider") {
				found = append(found, &chaosOutage{what: o.what, org: org, from: o.from, until: later(o.from.Add(takeoverTime), o.over.Add(storeBack))})
			}
		}
	}
	return found
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// processes looks at how the processes were and what they wrote.
func (v *chaosVerdict) processes() {
	v.t.Helper()
	for _, n := range v.nodes {
		v.t.Logf("%s: %d processes, at most %d MiB and %d goroutines", n.name, len(n.lives), n.memory>>10, n.goroutines)
		if n.goroutines > mostGoroutines || n.memory > mostMemory {
			v.t.Errorf("%s grew too much", n.name)
		}
		for i, life := range n.lives {
			text := life.stderr.String()
			if *chaosLogs != "" {
				v.check(os.WriteFile(filepath.Join(*chaosLogs, fmt.Sprintf("%s-%d.log", n.name, i)), []byte(text), 0o600))
			}
			for _, bad := range []string{"panic", "DATA RACE", "CANARY", v.key} {
				if at := strings.Index(text, bad); at >= 0 {
					v.t.Errorf("process %d of %s wrote what it must not: …%s…", i, n.name, text[max(0, at-200):min(len(text), at+500)])
				}
			}
		}
	}
}
