package config

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// template is text with placeholders, {entity_id} and {vars.NAME}.
type template []part

// part is literal text, or the name of a placeholder without its braces.
type part struct {
	text        string
	placeholder bool
}

var (
	placeholderPattern = regexp.MustCompile(`^(entity_id|vars\.` + varName + `)$`)
	varPattern         = regexp.MustCompile(`^` + varName + `$`)
	// valuePattern keeps a value to its place: none of these bytes ends a host label's name, a path segment or a query
	// parameter, and with the first one it is no dot segment.
	valuePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._~-]{0,252}$`)
)

const varName = `[A-Za-z_][A-Za-z0-9_-]{0,63}`

// value is what a placeholder may stand for.
func value(s string) (string, error) {
	return matching(s, valuePattern, errors.New("must begin with a letter or digit and hold letters, digits, . _ ~ - alone, at most 253 in all"))
}

// parseTemplate reads text with placeholders. Braces cannot be escaped: nothing that is templated needs them.
func parseTemplate(s string) (template, error) {
	var t template
	for {
		before, rest, found := strings.Cut(s, "{")
		if strings.Contains(before, "}") {
			return nil, errors.New("has a } without a {")
		}
		if before != "" {
			t = append(t, part{text: before})
		}
		if !found {
			return t, nil
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed {
			return nil, errors.New("has a { without a }")
		}
		if !placeholderPattern.MatchString(name) {
			return nil, errors.New("has an unknown placeholder: there are {entity_id} and {vars.NAME}")
		}
		t = append(t, part{text: name, placeholder: true})
		s = after
	}
}

// templated is a parser of single-line text with placeholders.
func templated(s string) (string, error) {
	if _, err := parseTemplate(s); err != nil {
		return "", err
	}
	return line(s)
}

func (t template) placeholders() []string {
	var names []string
	for _, p := range t {
		if p.placeholder && !slices.Contains(names, p.text) {
			names = append(names, p.text)
		}
	}
	return names
}

// expand puts in the values; missing is the first placeholder without one.
func (t template) expand(values map[string]string) (text, missing string) {
	var b strings.Builder
	for _, p := range t {
		if !p.placeholder {
			b.WriteString(p.text)
			continue
		}
		v, ok := values[p.text]
		if !ok {
			return "", p.text
		}
		b.WriteString(v)
	}
	return b.String(), ""
}

// sample puts an x for every placeholder, which is no hexadecimal digit: a placeholder cannot be half of an escape.
func (t template) sample() string {
	var b strings.Builder
	for _, p := range t {
		if p.placeholder {
			p.text = "x"
		}
		b.WriteString(p.text)
	}
	return b.String()
}

var braces = regexp.MustCompile(`\{[^}]*\}`)

// sample is template.sample for a piece of a template that has been parsed.
func sample(s string) string { return braces.ReplaceAllLiteralString(s, "x") }

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
