package config

// OrgSetting is one org's values of an integration's placeholders.
type OrgSetting struct {
	EntityID string
	Vars     map[string]string
}

// readOrgs reads what differs between orgs. It is false after a problem.
func (in *Integration) readOrgs(o *object) bool {
	before := len(o.problems)
	set(o.at("default_entity_id"), &in.DefaultEntityID, value)
	in.DefaultVars = readVars(o.at("default_vars"))
	settings, _ := o.at("org_settings").object()
	for key, n := range settings.all() {
		if _, err := org(key); err != nil {
			n.problem("%v", err)
			continue
		}
		var own OrgSetting
		entry, _ := n.object()
		set(entry.at("entity_id"), &own.EntityID, value)
		own.Vars = readVars(entry.at("vars"))
		entry.close()
		if in.OrgSettings == nil {
			in.OrgSettings = map[string]OrgSetting{}
		}
		in.OrgSettings[key] = own
	}
	setList(o.at("only_orgs"), &in.OnlyOrgs, org)
	in.Fallback = "global"
	set(o.at("fallback"), &in.Fallback, oneOf("global", "none"))
	return len(o.problems) == before
}

// readVars reads the values of {vars.NAME}.
func readVars(n node) map[string]string {
	return readMap(n, func(at node, name string) bool {
		if varPattern.MatchString(name) {
			return true
		}
		at.problem("is no name of a variable: it must begin with a letter and hold letters, digits, _ - alone")
		return false
	}, value)
}

// readMap reads a mapping of names to single values. Nil: not given.
func readMap(n node, allowed func(at node, name string) bool, parse func(string) (string, error)) map[string]string {
	o, _ := n.object()
	var m map[string]string
	for name, n := range o.all() {
		var v string
		if set(n, &v, parse) && allowed(n, name) {
			putIn(&m, name, v)
		}
	}
	return m
}
