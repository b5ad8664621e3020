package main

import (
	"slices"

	"github.com/bifrost-proxy/bifrost/config"
)

const unboundText = "methods, allow and deny do not bind a caller with may_read_tokens: with a token it calls the upstream by itself"

// unbound returns the integrations with rules that some caller gets round by reading their tokens. An operator may want that: the
// rules are then for the other callers.
func unbound(cfg *config.Config) []string {
	var names []string
	for _, in := range cfg.Integrations {
		reads := func(c config.Caller) bool {
			return c.MayReadTokens && (slices.Contains(c.Integrations, "*") || slices.Contains(c.Integrations, in.Name))
		}
		if in.ExposeToken && in.Ruled() && slices.ContainsFunc(cfg.Callers, reads) {
			names = append(names, in.Name)
		}
	}
	return names
}

// warnUnbound tells the operator, who may not have meant it.
func (p *process) warnUnbound(cfg *config.Config) {
	if names := unbound(cfg); len(names) > 0 {
		p.log.Warn(unboundText, "integrations", names)
	}
}
