package manifest

import (
	"slices"

	"sallyport/internal/ident"
	"sallyport/internal/policy"
)

// PerimeterFile ends the names of files that hold perimeters, beside those of policies.
const PerimeterFile = "perimeters.toml"

// ParsePerimeters reads the text of a file of perimeters, those of a namespace or with "" of the whole server; file
// names it in messages. The error is a problem with every fault in it:
//
//	[levels.office]
//	ip    = ["192.0.2.0/24"]
//	hours = ["mon-fri 07:00-19:00"]                # UTC; also mtls = true, strength = ["phr"], methods = ["hwk"]
//
//	[perimeters.payments]
//	mode        = "dry-run"                        # "enforce" unless it says otherwise
//	event_types = ["payment.*", "card.charged"]    # in one of the server "shop/payment.*"
//	functions   = ["charge"]
//	secrets     = ["stripe-*"]
//	hosts       = ["api.example.org", "*.example.net"] # with all of their ports
//	kv          = ["cards"]                        # buckets; also sqlite and blob, and audiences of identity tokens
//	require     = ["office"]
//
//	[perimeters.payments.bridges.settled]
//	from    = ["function:charge"]
//	to      = ["event_type:order.paid"]
//	actions = ["publish"]
//	when    = "context.event.size < 1000"          # Cedar
func ParsePerimeters(file string, text []byte, ns ident.Namespace) (policy.PerimeterFile, error) {
	d, err := open(file, text)
	if err != nil {
		return policy.PerimeterFile{}, err
	}
	out := policy.PerimeterFile{Name: file, Namespace: ns}
	root := d.table(d.root)
	for name, t := range root.tables("levels", maxMembers) {
		out.Levels = append(out.Levels, t.accessLevel(name))
	}
	for name, t := range root.tables("perimeters", maxMembers) {
		out.Perimeters = append(out.Perimeters, t.perimeter(name))
	}
	root.need("perimeters", "the file has no perimeters; add one, such as [perimeters.payments]")
	root.done()
	faults, err := policy.CheckPerimeters(out)
	if err != nil {
		return policy.PerimeterFile{}, err
	}
	for _, f := range faults {
		d.perimeterFault(f)
	}
	if err := d.err(); err != nil {
		return policy.PerimeterFile{}, err
	}
	return out, nil
}

// perimeterFault notes a fault that policy found at its place in the text.
func (d *document) perimeterFault(f policy.PerimeterFault) {
	n := d.root
	for i, key := range f.Path {
		child := n.members[key]
		if child == nil {
			break
		}
		if n = child; i == len(f.Path)-1 && f.Missing && n.kind != kindTable {
			return // it is there, and was refused for what it is
		}
	}
	at := n.value
	switch {
	case f.Missing && n.kind == kindTable:
		if d.lacking(n) {
			return
		}
		at = n.key
	case n.kind == kindTable:
		at = n.key
	case f.Item >= 0:
		at = textItem(n, f.Item)
	case f.In.Detail != "" && n.kind == kindText:
		at = d.inText(n, f.In)
	}
	d.fault(at, "%s", f.Detail)
}

// lacking reports whether a fault was noted within a table or at its key already: what it lacks is then likely there, and
// misspelt or refused.
func (d *document) lacking(n *node) bool {
	places := []place{n.key}
	for _, m := range n.members {
		places = append(places, m.key, m.value)
	}
	return slices.ContainsFunc(places, func(p place) bool {
		at := d.mark(p)
		for _, f := range d.faults {
			if f.Line == at.Line && f.Column == at.Column {
				return true
			}
		}
		return false
	})
}

// textItem returns the place of a text in a list, where what is no text was left out.
func textItem(n *node, i int) place {
	for _, item := range n.items {
		if item.kind != kindText {
			continue
		}
		if i == 0 {
			return item.value
		}
		i--
	}
	return n.value
}

// listed reads a list of texts whose number policy checks.
func (t *table) listed(key string) []string {
	var list []string
	for _, n := range t.texts(key, maxNodes) {
		list = append(list, n.text)
	}
	return list
}

func (t *table) accessLevel(name string) policy.Level {
	l := policy.Level{Name: name, IP: t.listed("ip"), Hours: t.listed("hours"), Strength: t.listed("strength"), Methods: t.listed("methods")}
	t.truth("mtls", &l.MutualTLS)
	if n := t.n.members["mtls"]; n != nil && n.kind == kindBool && !l.MutualTLS {
		t.fault("mtls", "a level asks for a certificate or does not speak of it; leave the key out")
	}
	t.done()
	return l
}

func (t *table) perimeter(name string) policy.Perimeter {
	p := policy.Perimeter{Name: name, File: t.d.file, Line: t.d.mark(t.n.key).Line}
	t.textTo("description", &p.Description)
	mode := policy.Enforce.String()
	t.oneOf("mode", &mode, policy.Enforce.String(), policy.DryRun.String())
	if mode == policy.DryRun.String() {
		p.Mode = policy.DryRun
	}
	p.EventTypes, p.Functions, p.Secrets, p.Hosts = t.listed("event_types"), t.listed("functions"), t.listed("secrets"), t.listed("hosts")
	p.Audiences, p.KV, p.SQLite, p.Blob = t.listed("audiences"), t.listed("kv"), t.listed("sqlite"), t.listed("blob")
	p.Require = t.listed("require")
	if n := t.n.members["keys"]; n != nil {
		t.d.fault(n.key, "no key has a name to be inside by: those of the server are its own, and others are secrets; name the secrets")
		t.known = append(t.known, "keys")
	}
	for name, b := range t.tables("bridges", maxMembers) {
		p.Bridges = append(p.Bridges, b.bridge(name))
	}
	t.done()
	return p
}

func (t *table) bridge(name string) policy.Bridge {
	b := policy.Bridge{Name: name, From: t.listed("from"), To: t.listed("to"), When: t.text("when")}
	for _, a := range t.listed("actions") {
		b.Actions = append(b.Actions, policy.Action(a))
	}
	t.need("from", `the bridge does not say where it begins; add it, such as from = ["function:price"]`)
	t.need("to", `the bridge does not say where it leads; add it, such as to = ["event_type:order.created"]`)
	t.need("actions", `the bridge has no actions; add some, such as actions = ["publish"]`)
	t.done()
	return b
}
