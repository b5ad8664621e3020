package config

import (
	"errors"
	"slices"
)

// Operator may use the screen and the JSON API.
type Operator struct {
	Name  string
	Token Secret
	Rights
}

// Rights are what an operator may do.
type Rights struct {
	Viewer       bool     // role: viewer; sees, and changes nothing
	Integrations []string // those seen; nil: all
}

// Caller may use the proxy.
type Caller struct {
	Name         string
	Key          Secret
	Orgs         []string // "*": every org, "@global": the right to ask for the global connection
	Integrations []string // "*": every integration
	Allow        []string // "METHOD /path/**"; empty: everything

	MayReadTokens bool // access tokens of integrations with ExposeToken; never together with Allow
}

func readOperators(n node, known []*Integration) []Operator {
	var list []Operator
	names, tokens := unique{}, unique{}
	for _, item := range n.items() {
		o, ok := item.object()
		if !ok {
			continue
		}
		var op Operator
		readIdentity(o, "token", &op.Name, &op.Token, names, tokens)
		op.Rights = readRights(o, known)
		o.close()
		list = append(list, op)
	}
	return list
}

// readRights reads the keys role and integrations.
func readRights(o *object, known []*Integration) Rights {
	role := "operator"
	set(o.at("role"), &role, oneOf("viewer", "operator"))
	r := Rights{Viewer: role == "viewer"}
	setList(o.at("integrations"), &r.Integrations, oneOfThese(known))
	if slices.Contains(r.Integrations, "*") {
		r.Integrations = nil
	}
	return r
}

func readCallers(n node, known []*Integration) []Caller {
	var list []Caller
	names, keys := unique{}, unique{}
	for _, item := range n.items() {
		o, ok := item.object()
		if !ok {
			continue
		}
		var c Caller
		readIdentity(o, "key", &c.Name, &c.Key, names, keys)
		setList(o.need("orgs"), &c.Orgs, callerOrg)
		setList(o.need("integrations"), &c.Integrations, oneOfThese(known))
		setList(o.at("allow"), &c.Allow, rule)
		reads := o.at("may_read_tokens")
		setBool(reads, &c.MayReadTokens)
		if c.MayReadTokens && o.at("allow").given() {
			reads.problem("would open every path to the caller, by the tokens themselves, while allow opens some: remove one of them")
		}
		o.close()
		list = append(list, c)
	}
	return list
}

// readIdentity reads a name and the secret that proves it. Both may stand in the file once.
func readIdentity(o *object, proof string, name *string, secret *Secret, names, secrets unique) {
	if n := o.need("name"); set(n, name, who) {
		names.check(n, *name)
	}
	n := o.need(proof)
	if s, ok := n.credential(); ok {
		*secret = s
		secrets.check(n, s.Reveal())
	}
}

// callerOrg is an org, "*" or "@global".
func callerOrg(s string) (string, error) {
	if s == "*" || s == "@global" {
		return s, nil
	}
	if _, err := org(s); err != nil {
		return "", errors.New(`must be "*", "@global" or the name of an org`)
	}
	return s, nil
}

// oneOfThese is the name of an integration of this file, or "*".
func oneOfThese(known []*Integration) func(string) (string, error) {
	return func(s string) (string, error) {
		if s == "*" || slices.ContainsFunc(known, func(in *Integration) bool { return in.Name == s }) {
			return s, nil
		}
		names := make([]string, len(known))
		for i, in := range known {
			names[i] = in.Name
		}
		if near := nearest(s, names); near != "" {
			return "", errors.New("names no integration of this file: did you mean " + near + "?")
		}
		return "", errors.New("names no integration of this file")
	}
}
