package policy

import (
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"

	"sallyport/internal/ident"
)

// world is the entities of one request: those that its policies can look up. A map would cost more
// than the decision.
type world struct {
	request  cedar.Request
	entities [3]cedar.Entity // principal, resource, and who caused the request
	n        int
	// about is the resource while its entity is not made: most policies look at the name in their scope, and no further.
	about Resource
	// set and asked are of a world that is not made yet: where all policies are quick, a condition of a perimeter makes it, or nothing.
	set   *Set
	asked *Request
}

// make makes a world that is not made yet, and reports whether there is one now.
func (w *world) make() bool {
	if w.set == nil {
		return true
	}
	made, ok := w.set.ask(w.asked, true)
	if ok {
		*w = *made
	}
	return ok
}

// Get returns an entity of the request.
func (w *world) Get(uid types.EntityUID) (types.Entity, bool) {
	for i := range w.entities[:w.n] {
		if w.entities[i].UID == uid {
			if i == 1 && w.about.Kind != "" {
				w.entities[1], w.about = w.about.entity(uid), Resource{}
			}
			return w.entities[i], true
		}
	}
	return types.Entity{}, false
}

// newWorld returns the Cedar form of a request, with the given parts of its context, and false when it holds
// more than it may.
func newWorld(q *Request, parts ContextPart) (*world, bool) {
	w := &world{n: 1}
	if q.Principal.prepared != nil {
		w.entities[0] = *q.Principal.prepared
	} else {
		id, ok := q.Principal.well()
		if !ok {
			return nil, false
		}
		w.entities[0] = q.Principal.entity(id)
	}
	principal := w.entities[0].UID
	resource := q.Resource.uid()
	// A function that acts on itself is one entity, and its own description of itself says more.
	if resource != principal {
		w.n = 2
		if q.resource != nil {
			w.entities[1] = *q.resource
		} else {
			w.entities[1].UID, w.about = resource, q.Resource
		}
	}
	w.request = cedar.Request{Principal: principal, Action: actionUID(q.Action), Resource: resource}
	if parts != 0 {
		cause, ok := q.Context.cause(w, q.permitted)
		if !ok {
			return nil, false
		}
		w.request.Context = q.Context.record(parts, cause)
	}
	return w, true
}

func actionUID(a Action) types.EntityUID { return cedar.NewEntityUID("Action", cedar.String(a)) }

func (r *Resource) uid() types.EntityUID {
	id := r.Name
	if r.Kind == KindEventType || r.Kind == KindFunction || r.Kind == KindGrant || r.Kind == KindSecret {
		id = string(r.Namespace) + "/" + r.Name
	}
	return cedar.NewEntityUID(cedar.EntityType(r.Kind), cedar.String(id))
}

// parent returns the namespace that r is in.
func (r *Resource) parent() (types.EntityUID, bool) {
	return namespaceUID(r.Namespace), r.Kind == KindEventType || r.Kind == KindFunction || r.Kind == KindGrant || r.Kind == KindSecret
}

// function returns the function that a grant is in.
func (r *Resource) function() (Resource, bool) {
	if r.Kind != KindGrant {
		return Resource{}, false
	}
	name, _, _ := strings.Cut(r.Name, "/")
	return Resource{Kind: KindFunction, Namespace: r.Namespace, Name: name}, true
}

func (r *Resource) entity(uid types.EntityUID) cedar.Entity {
	if r.Kind == KindGrant {
		return r.grant(uid)
	}
	e := cedar.Entity{UID: uid, Attributes: cedar.NewRecord(cedar.RecordMap{
		"name": cedar.String(r.Name), "namespace": cedar.String(r.Namespace),
	})}
	if parent, ok := r.parent(); ok {
		e.Parents = cedar.NewEntityUIDSet(parent)
	}
	return e
}

// grant is the entity of a grant, which is in its function.
func (r *Resource) grant(uid types.EntityUID) cedar.Entity {
	function, name, _ := strings.Cut(r.Name, "/")
	attributes := cedar.RecordMap{
		"name": cedar.String(name), "function": cedar.String(function), "namespace": cedar.String(r.Namespace),
	}
	if r.Grant != "" {
		attributes["kind"] = cedar.String(r.Grant)
	}
	of, _ := r.function()
	return cedar.Entity{UID: uid, Attributes: cedar.NewRecord(attributes), Parents: cedar.NewEntityUIDSet(of.uid(), namespaceUID(r.Namespace))}
}

func (p *Principal) entity(id string) cedar.Entity {
	e := cedar.Entity{UID: cedar.NewEntityUID(cedar.EntityType(p.Kind), cedar.String(id))}
	if p.Kind == KindFunction {
		attributes := cedar.RecordMap{
			"name": cedar.String(p.functionName(id)), "namespace": cedar.String(p.Namespace), "eventTypes": texts(p.EventTypes),
			"secrets": texts(p.Secrets), "reveals": texts(p.Reveals),
		}
		if len(p.Grants) > 0 {
			attributes["grants"], attributes["invokes"] = texts(p.Grants), texts(p.Invokes)
		}
		if p.Revision != "" {
			attributes["revision"] = cedar.String(p.Revision)
		}
		e.Attributes = cedar.NewRecord(attributes)
		e.Parents = cedar.NewEntityUIDSet(namespaceUID(p.Namespace))
		return e
	}
	attributes := cedar.RecordMap{
		"role": cedar.String(p.Role), "namespace": cedar.String(p.Namespace), "eventTypes": texts(p.EventTypes),
		"limited": cedar.Boolean(len(p.EventTypes) > 0), "attenuated": cedar.Boolean(p.Attenuated),
	}
	if len(p.Owns) > 0 {
		attributes["owns"] = texts(p.Owns)
	}
	if p.Claims != nil {
		attributes["claims"] = p.Claims.record()
		e.Tags = p.Claims.tags()
	}
	e.Attributes = cedar.NewRecord(attributes)
	if len(p.Groups) > 0 {
		groups := make([]types.EntityUID, len(p.Groups))
		for i, g := range p.Groups {
			groups[i] = groupUID(g)
		}
		e.Parents = cedar.NewEntityUIDSet(groups...)
	}
	return e
}

// functionName returns the name of the function of an id in policies.
func (p *Principal) functionName(id string) string {
	if p.Namespace != "" && len(id) > len(p.Namespace)+1 {
		return id[len(p.Namespace)+1:]
	}
	return id
}

func groupUID(name string) types.EntityUID { return cedar.NewEntityUID("Group", cedar.String(name)) }

func (c *Claims) record() cedar.Record {
	m := cedar.RecordMap{
		"issuer": cedar.String(c.Issuer), "groups": texts(c.Groups), "roles": texts(c.Roles), "methods": texts(c.Methods),
	}
	if c.Tenant != "" {
		m["tenant"] = cedar.String(c.Tenant)
	}
	if c.Strength != "" {
		m["strength"] = cedar.String(c.Strength)
	}
	if !c.Time.IsZero() {
		m["time"] = cedar.NewDatetime(c.Time)
	}
	return cedar.NewRecord(m)
}

func (c *Claims) tags() cedar.Record {
	if len(c.Others) == 0 {
		return cedar.Record{}
	}
	m := make(cedar.RecordMap, len(c.Others))
	for name, values := range c.Others {
		m[cedar.String(name)] = texts(values)
	}
	return cedar.NewRecord(m)
}

// cause adds who caused the request to the world, and returns the record that names it.
func (c *Context) cause(w *world, permitted bool) (types.Value, bool) {
	if c.Cause == nil {
		return nil, true
	}
	if len(c.Cause.Functions) > MaxChain {
		return nil, false
	}
	functions := make([]types.Value, len(c.Cause.Functions))
	for i, f := range c.Cause.Functions {
		p := Principal{Kind: KindFunction, ID: f}
		id, ok := p.well()
		if !ok {
			return nil, false
		}
		functions[i] = cedar.NewEntityUID(cedar.EntityType(KindFunction), cedar.String(id))
	}
	m := cedar.RecordMap{
		"functions": cedar.NewSet(functions...), "depth": cedar.Long(len(functions)), "permitted": cedar.Boolean(permitted),
	}
	if p := c.Cause.Principal; p != nil {
		id, ok := p.well()
		if !ok || p.Kind == KindFunction {
			return nil, false
		}
		e := p.entity(id)
		w.entities[w.n] = e
		w.n++
		m[cedar.String(principalPrefix(p.Kind)[:len(principalPrefix(p.Kind))-1])] = e.UID
	}
	return cedar.NewRecord(m), true
}

func (c *Context) record(parts ContextPart, cause types.Value) cedar.Record {
	m := make(cedar.RecordMap, 6)
	if parts&PartNow != 0 && !c.Now.IsZero() {
		m["now"] = cedar.NewDatetime(c.Now)
	}
	switch c.Transport {
	case TransportPlaintext, TransportTLS, TransportMutualTLS, TransportInternal:
		m["tls"] = cedar.Boolean(c.Transport != TransportPlaintext)
		m["mtls"] = cedar.Boolean(c.Transport == TransportMutualTLS)
	case TransportUnkept:
		m["tls"] = cedar.True
	case TransportUnknown:
	}
	if at, ok := c.address(); ok && parts&PartIP != 0 {
		m["ip"] = types.IPAddr(at)
	}
	if cause != nil {
		m["cause"] = cause
	}
	if e := c.Event; e != nil && parts&PartEvent != 0 {
		r := cedar.RecordMap{"type": cedar.String(e.Type), "source": cedar.String(e.Source), "size": cedar.Long(e.Size)}
		if e.Subject != "" {
			r["subject"] = cedar.String(e.Subject)
		}
		m["event"] = cedar.NewRecord(r)
	}
	if c.Op != "" && parts&PartOp != 0 {
		m["op"] = cedar.String(c.Op)
	}
	return cedar.NewRecord(m)
}

func texts[T ~string](list []T) cedar.Set {
	if len(list) == 0 {
		return cedar.Set{}
	}
	values := make([]types.Value, len(list))
	for i, s := range list {
		values[i] = cedar.String(s)
	}
	return cedar.NewSet(values...)
}

func namespaceUID(ns ident.Namespace) types.EntityUID {
	return cedar.NewEntityUID(cedar.EntityType(KindNamespace), cedar.String(ns))
}
