package config

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
)

// Resolved is an integration's templates with one org's values.
type Resolved struct {
	EntityID            string
	Upstream            string
	AuthorizationURL    string
	TokenURL            string
	RevocationURL       string
	AuthorizationParams map[string]string
	TokenParams         map[string]string
	Headers             map[string]string
}

// resolution is what Resolve gives: orgs without settings of their own share that of the defaults.
type resolution struct {
	Resolved
	missing string // a placeholder without value, or empty
	field   string // where it stands
}

// defaults is the key of the resolution of every org without settings. No org can be spelled so.
const defaults = "@global"

// Resolve returns the integration's templates with the values of org ("@global": the defaults), or an error that names the
// placeholder without a value. The maps are shared: do not change them. It may be called concurrently.
func (in *Integration) Resolve(org string) (Resolved, error) {
	all := in.resolutions
	if all == nil { // not from Load
		all = in.resolveAll()
	}
	r, ok := all[org]
	if !ok {
		r = all[defaults]
	}
	if r.missing != "" {
		return Resolved{}, fmt.Errorf("config: integrations.%s.%s: {%s} has no value for org %q", in.Name, r.field, r.missing, org)
	}
	return r.Resolved, nil
}

// resolveAll resolves the defaults and every org that has settings.
func (in *Integration) resolveAll() map[string]resolution {
	all := map[string]resolution{defaults: in.resolve(in.values(OrgSetting{}))}
	for org, setting := range in.OrgSettings {
		all[org] = in.resolve(in.values(setting))
	}
	return all
}

// values returns what the placeholders stand for: the org's value, else the default.
func (in *Integration) values(own OrgSetting) map[string]string {
	values := map[string]string{}
	for _, vars := range []map[string]string{in.DefaultVars, own.Vars} {
		for name, v := range vars {
			values["vars."+name] = v
		}
	}
	for _, id := range []string{in.DefaultEntityID, own.EntityID} {
		if id != "" {
			values["entity_id"] = id
		}
	}
	return values
}

func (in *Integration) resolve(values map[string]string) resolution {
	r := resolution{Resolved: Resolved{EntityID: values["entity_id"]}}
	for f := range in.templates() {
		t, err := parseTemplate(f.text)
		if err != nil { // not from Load, which refuses it
			r.missing, r.field = "?", f.path()
			return r
		}
		text, missing := t.expand(values)
		if missing != "" {
			r.missing, r.field = missing, f.path()
			return r
		}
		r.put(f, text)
	}
	return r
}

// field is one templated text of an integration: a key, and in a mapping a name.
type field struct{ key, name, text string }

func (f field) path() string {
	if f.name == "" {
		return f.key
	}
	return f.key + "." + f.name
}

// templates yields every templated text that is set, in a fixed order.
func (in *Integration) templates() iter.Seq[field] {
	list := []field{
		{"upstream", "", in.Upstream},
		{"authorization_url", "", in.AuthorizationURL},
		{"token_url", "", in.TokenURL},
		{"revocation_url", "", in.RevocationURL},
	}
	list = slices.DeleteFunc(list, func(f field) bool { return f.text == "" })
	for _, m := range []struct {
		key    string
		values map[string]string
	}{{"authorization_params", in.AuthorizationParams}, {"token_params", in.TokenParams}, {"headers", in.Headers}} {
		for _, name := range slices.Sorted(maps.Keys(m.values)) {
			list = append(list, field{m.key, name, m.values[name]})
		}
	}
	return slices.Values(list)
}

// put stores a resolved text under its field.
func (r *Resolved) put(f field, text string) {
	switch f.key {
	case "upstream":
		r.Upstream = text
	case "authorization_url":
		r.AuthorizationURL = text
	case "token_url":
		r.TokenURL = text
	case "revocation_url":
		r.RevocationURL = text
	case "authorization_params":
		putIn(&r.AuthorizationParams, f.name, text)
	case "token_params":
		putIn(&r.TokenParams, f.name, text)
	case "headers":
		putIn(&r.Headers, f.name, text)
	}
}

func putIn(m *map[string]string, name, text string) {
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[name] = text
}

// located returns where a templated text stands.
func located(o *object, f field) node {
	n := o.at(f.key)
	if f.name == "" {
		return n
	}
	m, _ := n.object()
	return m.at(f.name)
}

// checkTemplates reports placeholders that no org could ever resolve.
func (in *Integration) checkTemplates(o *object) {
	all := in.values(OrgSetting{})
	for org, own := range in.OrgSettings {
		if in.OnlyOrgs == nil || slices.Contains(in.OnlyOrgs, org) {
			maps.Copy(all, in.values(own))
		}
	}
	for f := range in.templates() {
		t, _ := parseTemplate(f.text) // checked when it was read
		for _, name := range t.placeholders() {
			if _, ok := all[name]; ok {
				continue
			}
			where := "default_entity_id"
			if v, ok := strings.CutPrefix(name, "vars."); ok {
				where = "default_vars." + v
			}
			located(o, f).problem("{%s} has no value for any org: set %s, or org_settings", name, where)
		}
	}
}

// checkResolved reports values that make no valid host of a URL, such as one that is too long for a label.
func (in *Integration) checkResolved(o *object) {
	settings, _ := o.at("org_settings").object()
	for org, r := range in.resolutions {
		for _, f := range []field{{"upstream", "", r.Upstream}, {"authorization_url", "", r.AuthorizationURL}, {"token_url", "", r.TokenURL}, {"revocation_url", "", r.RevocationURL}} {
			if f.text == "" || checkURL(f.text, false, true) == nil {
				continue
			}
			n := settings.at(org)
			if org == defaults {
				n = o.at(f.key)
			}
			n.problem("makes no valid host of %s: use letters, digits and - in single labels", f.key)
		}
	}
}
