package config

import (
	"errors"
	"math"
	"regexp"
	"strconv"
)

// Limits bound what is used of an integration. Zero is unlimited.
type Limits struct {
	PerOrg, PerCaller  Quota
	Concurrent         int  // requests under way, of all orgs
	UpstreamRetryAfter bool // default true: an org that the upstream asks to wait does
}

// Quota is the share of one org or caller. Zero is unlimited.
type Quota struct {
	Rate       float64 // requests per second
	Burst      int     // default Rate, rounded up; 0 without a Rate
	Concurrent int     // requests under way
}

// ratePattern leaves out what strconv reads besides: exponents, hexadecimal numbers, infinity.
var ratePattern = regexp.MustCompile(`^[0-9]{1,7}(\.[0-9]{1,3})?$`)

// maxCount bounds what is counted, and is more than one process can do.
const maxCount = 1_000_000

// perSecond is a number of requests per second.
func perSecond(s string) (float64, error) {
	if n, err := strconv.ParseFloat(s, 64); err == nil && ratePattern.MatchString(s) && 0 < n && n <= maxCount {
		return n, nil
	}
	return 0, errors.New("must be a number of requests per second from 0.001 to 1000000, such as 50 or 0.5")
}

// count is a number of requests or tunnels, at least one.
func count(s string) (int, error) {
	if n, err := strconv.ParseUint(s, 10, 32); err == nil && 0 < n && n <= maxCount {
		return int(n), nil
	}
	return 0, errors.New("must be a whole number from 1 to 1000000")
}

// readLimits leaves it to the caller to close o.
func readLimits(o *object) Limits {
	l := Limits{UpstreamRetryAfter: true}
	l.PerOrg = readQuota(o.at("per_org"))
	l.PerCaller = readQuota(o.at("per_caller"))
	set(o.at("concurrent"), &l.Concurrent, count)
	setBool(o.at("upstream_retry_after"), &l.UpstreamRetryAfter)
	return l
}

func readQuota(n node) Quota {
	var q Quota
	o, ok := n.object()
	rate, burst := o.at("rate"), o.at("burst")
	if set(rate, &q.Rate, perSecond) {
		q.Burst = int(math.Ceil(q.Rate))
	}
	set(burst, &q.Burst, count)
	set(o.at("concurrent"), &q.Concurrent, count)
	switch {
	case burst.given() && !rate.given():
		burst.problem("is how many requests of a rate may come at once: add rate, or remove it")
	case ok && n.given() && len(o.keys) == 0:
		n.problem("is empty: give rate or concurrent, or remove it")
	}
	o.close()
	return q
}

// checkLimits reports a limit per caller where there are no callers to tell apart.
func checkLimits(root *object, c *Config) {
	if root.at("callers").lists() {
		return
	}
	list, _ := root.at("integrations").object()
	for _, in := range c.Integrations {
		o, _ := list.at(in.Name).object()
		limits, _ := o.at("limits").object()
		if per := limits.at("per_caller"); per.given() {
			per.problem("limits nobody: there are no callers; add callers, or remove it")
		}
	}
}
