package main

import (
	"github.com/bifrost-proxy/bifrost/config"
	"github.com/bifrost-proxy/bifrost/proxy"
)

// guarded reports whether the proxy listener asks callers for a proof.
func guarded(cfg *config.Config) bool { return len(cfg.Callers)+len(cfg.CallerJWT) > 0 }

// jwtIssuer translates an issuer of caller_jwt.
func jwtIssuer(j config.CallerJWT) proxy.JWTIssuer {
	return proxy.JWTIssuer{
		Issuer: j.Issuer, Audience: j.Audience, KeysURL: j.JWKSURL, Algorithms: j.Algorithms,
		OrgClaim: j.OrgClaim, IntegrationsClaim: j.IntegrationsClaim,
	}
}

// subjects translates those of an entry of callers.
func subjects(c config.Caller) []proxy.Subject {
	var list []proxy.Subject
	for _, s := range c.Subjects {
		list = append(list, proxy.Subject(s))
	}
	return list
}
