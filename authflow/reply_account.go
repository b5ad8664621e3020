package authflow

import (
	"encoding/json"
	"regexp"
)

// accountOf returns a hash that tells whose an ID token is, or nothing if it has no issuer and subject. The signature is not
// checked: the token came from the provider itself over TLS (OpenID Connect Core section 3.1.3.7), and the fingerprint serves
// to notice a change of account, not to let anybody in. At Microsoft the subject differs per application, and tenant and
// object do not.
func accountOf(id *idClaims) string {
	switch {
	case id == nil || id.Iss == "":
		return ""
	case id.Tid != "" && id.Oid != "":
		return digest(id.Iss, "tid", id.Tid, id.Oid)
	case id.Sub != "":
		return digest(id.Iss, "sub", id.Sub)
	}
	return ""
}

// salesforceIdentity is the identity URL of Salesforce, whose host is that of whichever address the user signed in at.
var salesforceIdentity = regexp.MustCompile(`^https://[^/?#]+/id/([0-9A-Za-z]{15,18})/([0-9A-Za-z]{15,18})$`)

// namedAccount returns a hash of the account that a token answer names beside the tokens, without an ID token: the workspace and
// enterprise of Slack, the organization and user of Salesforce. It is empty for every other answer.
func namedAccount(raw map[string]json.RawMessage) string {
	team, enterprise := memberID(raw["team"]), memberID(raw["enterprise"])
	if team != "" || enterprise != "" {
		return digest("slack", team, enterprise)
	}
	if m := salesforceIdentity.FindStringSubmatch(scalarOf(raw["id"])); m != nil {
		return digest("salesforce", m[1], m[2])
	}
	return ""
}

// memberID returns the id of an object {"id": …}.
func memberID(raw json.RawMessage) string {
	var object struct {
		ID json.RawMessage `json:"id"`
	}
	if json.Unmarshal(raw, &object) != nil {
		return ""
	}
	return scalarOf(object.ID)
}

// withRealm adds the company that a callback has named (QuickBooks sends no other sign of it) to the fingerprint of an account.
func withRealm(realm, account string) string {
	if realm == "" {
		return account
	}
	return digest("realm", realm, account)
}
