package main

import (
	"encoding/hex"
	"slices"
	"time"

	"github.com/bifrost-proxy/bifrost/config"
)

// endingSoon is how long before the end of a caller's key the operator is told: time to give the caller another.
const endingSoon = 14 * 24 * time.Hour

// endingKey is a caller's key that has ended or soon will.
type endingKey struct {
	caller, digest string // the first 8 digits of key_sha256, which tell the caller's keys apart
	notAfter       time.Time
	ended          bool
}

// endingKeys returns them, the first to end first.
func endingKeys(cfg *config.Config, now time.Time) []endingKey {
	var list []endingKey
	for _, c := range cfg.Callers {
		for _, k := range c.Keys {
			if !k.NotAfter.IsZero() && k.NotAfter.Before(now.Add(endingSoon)) {
				list = append(list, endingKey{c.Name, hex.EncodeToString(k.SHA256[:4]), k.NotAfter, now.After(k.NotAfter)})
			}
		}
	}
	slices.SortStableFunc(list, func(a, b endingKey) int { return a.notAfter.Compare(b.notAfter) })
	return list
}

// message says what the matter is with the key, and what to do.
func (k endingKey) message() string {
	if k.ended {
		return "a caller's key has ended and proves nothing: remove it, and see that the caller has another"
	}
	return "a caller's key ends within 14 days: add another under keys and give it to the caller"
}

// warnEnding tells the operator while there is time: of every key once when its end comes near, and once when it has ended. It is
// called every half minute or so, by one goroutine.
func (p *process) warnEnding(cfg *config.Config) {
	before := p.ending
	p.ending = endingKeys(cfg, time.Now())
	for _, k := range p.ending {
		if slices.Contains(before, k) {
			continue
		}
		p.log.Warn(k.message(), "caller", k.caller, "key_sha256", k.digest, "not_after", k.notAfter)
	}
}
