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
		if op.Name == "anonymous" || op.Name == "bifrost" {
			o.at("name").problem("means nobody, or the process itself, in the audit log: choose another")
		}
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
