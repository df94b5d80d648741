// Package policy decides: may this principal do this action on this resource? It is the one place
// that does, with Cedar.
//
// A Set is made of four kinds of policies: guard rails and roles, which are built in; those for the
// whole server; and those of each namespace, which are only ever asked about that namespace's own
// resources, whatever they say. Everything is denied that no policy permits; a forbid wins over every
// permit; an error in a forbid is a deny. Policies are validated against the schema before they become
// a Set, and every fault of every file is named.
//
// The package is pure: it reads no clock, no store and no request, and starts no goroutine. A Set is
// immutable and safe for concurrent use. Only access calls Decide; the analyses (WhoCan, CanReach,
// Explain, Diff, Replay, Unused, Propose and so on) answer an operator's questions and decide nothing.
//
// Source: the Cedar policy language, https://docs.cedarpolicy.com.
package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go"

	"sallyport/internal/ident"
)

// Action is what a principal wants to do.
type Action string

// The actions.
const (
	Publish             Action = "publish"
	Invoke              Action = "invoke"
	ReadEvents          Action = "readEvents"
	ReadEventData       Action = "readEventData"
	Deploy              Action = "deploy"
	ReadFunctions       Action = "readFunctions"
	ReadLogs            Action = "readLogs"
	ManageSubscriptions Action = "manageSubscriptions"
	ReadDeadLetters     Action = "readDeadLetters"
	ManageDeadLetters   Action = "manageDeadLetters"
	ReadStatus          Action = "readStatus"
	ReadPolicies        Action = "readPolicies"
	ManagePolicies      Action = "managePolicies"
	ReadMetrics         Action = "readMetrics"
	ManageTokens        Action = "manageTokens"
	ManageNamespaces    Action = "manageNamespaces"
	ManagePerimeters    Action = "managePerimeters"
	RotateIssuer        Action = "rotateIssuer"
	UseGrant            Action = "useGrant"
	SetSecret           Action = "setSecret"
	ReadSecretMetadata  Action = "readSecretMetadata"
	UseSecret           Action = "useSecret"
	RevealSecret        Action = "revealSecret"
	RotateSecret        Action = "rotateSecret"
	DestroySecret       Action = "destroySecret"
	ApproveGrants       Action = "approveGrants"
)

// Role is what a principal may do, before its namespace and its event types narrow it.
type Role string

// The roles. A principal without a role may do what policies permit, and nothing else.
const (
	Operator  Role = "operator"
	Developer Role = "developer"
	Publisher Role = "publisher"
	Reader    Role = "reader"
)

// Actions returns all actions.
func Actions() []Action {
	return []Action{
		Publish, Invoke, ReadEvents, ReadEventData, Deploy, ReadFunctions, ReadLogs, ManageSubscriptions,
		ReadDeadLetters, ManageDeadLetters, ReadStatus, ReadPolicies, ManagePolicies, ReadMetrics, ManageTokens,
		ManageNamespaces, ManagePerimeters, RotateIssuer, UseGrant, SetSecret, ReadSecretMetadata, UseSecret, RevealSecret, RotateSecret, DestroySecret,
		ApproveGrants,
	}
}

// Roles returns all roles.
func Roles() []Role { return []Role{Operator, Developer, Publisher, Reader} }

// Kind is the kind of an entity.
type Kind string

// The kinds of principals (the first four) and of resources (Function and those after it).
const (
	KindToken     Kind = "Token"
	KindUser      Kind = "User"
	KindService   Kind = "Service"
	KindFunction  Kind = "Function"
	KindEventType Kind = "EventType"
	KindSecret    Kind = "Secret"
	KindNamespace Kind = "Namespace"
	KindServer    Kind = "Server"
	KindGrant     Kind = "Grant"
)

// Limits of what a question may hold. One that holds more is denied.
const (
	// MaxGroups bounds the groups of a principal: each is looked up in the index.
	MaxGroups = 200
	// MaxClaims bounds the further claims of a principal, and the values of each.
	MaxClaims = 100
	// MaxChain bounds the functions between a request and its cause.
	MaxChain = 64
)

// Principal is who acts.
type Principal struct {
	Kind Kind
	// ID MUST begin with the kind in lower case and a colon, "user:…"; in a policy it stands without it. A
	// function's is "function:NAMESPACE/NAME".
	ID        ident.PrincipalID
	Role      Role            // "" for a function, and for who has none
	Namespace ident.Namespace // "": of the whole server
	// EventTypes are those a function's grants name, or those any other principal is limited to.
	EventTypes []ident.EventType
	// Secrets are those that a function's grants use, and Reveals those of them whose value it may read.
	Secrets, Reveals []string
	// Attenuated says that the holder of a credential narrowed it: it never manages tokens or policies.
	Attenuated bool
	// Owns are the namespaces that the principal is an owner of. A Set with facts about namespaces fills it in.
	Owns []ident.Namespace
	// Revision is that of a function.
	Revision string
	// Grants are the names of a function's grants that it uses while it runs, and Invokes the functions that they let it call.
	Grants  []string
	Invokes []ident.FunctionName
	// Groups are those that policies name as Group::"…". What an identity provider says MUST be qualified by
	// access before it gets here, if two of them may use one name.
	Groups []string
	// Claims are what an identity provider says of the principal, nil without one.
	Claims *Claims

	// prepared is the entity of the principal, nil when it is to be made for each request.
	prepared *cedar.Entity
}

// Prepare returns p with what each of its decisions needs made in advance. It MUST NOT be changed after.
func (p Principal) Prepare() Principal {
	if id, ok := p.well(); ok {
		e := p.entity(id)
		p.prepared = &e
	}
	return p
}

// Claims are what an identity provider says of who logged in. It MUST NOT change once used in a Principal.
type Claims struct {
	Issuer   string
	Groups   []string
	Roles    []string
	Tenant   string    // "": none
	Strength string    // OpenID's acr, "": unknown
	Methods  []string  // OpenID's amr
	Time     time.Time // of the authentication, zero: unknown
	// Others are further claims, which policies read as tags.
	Others map[string][]string
}

// Resource is what is acted on. It is comparable, so that decisions can be remembered.
type Resource struct {
	Kind      Kind
	Namespace ident.Namespace
	Name      string
	// Grant is the kind of a grant, "http" for instance, as far as it is known.
	Grant string
	// Reaches is what a grant reaches, one a line, as bridges name it: "host:api.example.org". Perimeters decide about that, and about
	// nothing that does not stand here.
	Reaches string
}

// OfGrant returns the resource that a grant of a function is, of a kind, and with what it reaches.
func OfGrant(ns ident.Namespace, function ident.FunctionName, name, kind, reaches string) Resource {
	return Resource{Kind: KindGrant, Namespace: ns, Name: string(function) + "/" + name, Grant: kind, Reaches: reaches}
}

// OfNamespace returns the resource that a whole namespace is.
func OfNamespace(ns ident.Namespace) Resource {
	return Resource{Kind: KindNamespace, Namespace: ns, Name: string(ns)}
}

// OfServer returns the resource that the server itself is.
func OfServer() Resource { return Resource{Kind: KindServer, Name: "server"} }

// well reports whether the parts of r go together: the namespace chooses whose policies are asked about it, so
// it must be the one that r is in.
func (r *Resource) well() bool {
	switch r.Kind {
	case KindNamespace:
		return r.Namespace != "" && r.Name == string(r.Namespace)
	case KindServer:
		return r.Namespace == ""
	case KindEventType, KindFunction, KindGrant, KindSecret:
		return r.Namespace != ""
	case KindToken, KindUser, KindService:
	}
	return false
}

// Transport is how a request came.
type Transport uint8

// The transports. With TransportUnknown, a policy that asks for TLS fails, and a failing forbid denies.
const (
	TransportUnknown   Transport = iota
	TransportPlaintext           // over a network, in clear: a guard rail forbids it
	TransportTLS
	TransportMutualTLS // with a certificate of the client
	TransportInternal  // within the server
	// TransportUnkept is of a request that is over and of which nobody kept how it came: not in clear, as none does. Policies
	// that read whether it had a certificate of the client fail.
	TransportUnkept
)

// Context is the circumstances of a request. What is not given, a policy cannot read: permits that
// need it do not permit, and forbids that need it deny.
type Context struct {
	IP        netip.Addr // of the client; not valid when there is none
	Now       time.Time
	Transport Transport
	Cause     *Cause // of a function's request
	Event     *Event // of a publish
	// Op is what is to be done with a grant, of its kind: "query" for instance; "" is not known.
	Op string
}

// Cause is who is behind the request of a function.
type Cause struct {
	Principal *Principal // a token, user or service; nil when nobody is, as for a schedule
	// Functions are those between the two, as "function:NAMESPACE/NAME".
	Functions []ident.PrincipalID
	// Sent is how and when the first event came. Nil is as the request itself, in questions that do not tell the two apart.
	Sent *Sent
	// Barred says that who is behind it may not do this, whatever policies say: the credential was narrowed or
	// revoked, or nobody knows any more who it was.
	Barred bool
}

// Sent is the part of a Context that goes with an event, for what is decided because of it later. What is not given, nobody
// knows: as in a Context.
type Sent struct {
	IP        netip.Addr
	Now       time.Time
	Transport Transport
}

// Event is what policies may know of an event.
type Event struct {
	Type, Source, Subject string
	Size                  int64 // of the data, in bytes
}

// Request is one question.
type Request struct {
	Principal Principal
	Action    Action
	Resource  Resource
	Context   Context

	// resource is the entity of the resource, nil when it is to be made.
	resource *cedar.Entity
	// permitted says that who caused it may do the same.
	permitted bool
}

// Decision is the answer. The zero Decision is a deny.
type Decision struct {
	Allowed bool
	// Policies are the ids of the determining policies, sorted; empty when nothing permits. A policy of a
	// namespace is named "NAMESPACE/ID", and a perimeter that denies "perimeter:NAME" or "perimeter:NAMESPACE/NAME".
	Policies []string
	// Bridges are those that an allowed request crosses the borders of perimeters by, "bridge:PERIMETER/NAME", sorted.
	Bridges []string
	// DryRun are the perimeters in dry-run that would deny, sorted. They change nothing else of the decision.
	DryRun []string
	// Errors are those of the policies that could not be evaluated, sorted by policy. Those of permits
	// permit nothing; those of forbids deny, and are among the determining policies.
	Errors []EvaluationError
}

// EvaluationError says why a policy could not be evaluated.
type EvaluationError struct{ Policy, Message string }

// well reports whether p can be asked about at all, and returns its id in policies.
func (p *Principal) well() (id string, ok bool) {
	prefix := principalPrefix(p.Kind)
	id, ok = strings.CutPrefix(string(p.ID), prefix)
	if prefix == "" || !ok || id == "" || len(p.Groups) > MaxGroups {
		return "", false
	}
	if p.Claims == nil {
		return id, true
	}
	c := p.Claims
	ok = len(c.Groups) <= MaxGroups && len(c.Roles) <= MaxGroups && len(c.Methods) <= MaxGroups && len(c.Others) <= MaxClaims
	for _, values := range c.Others {
		ok = ok && len(values) <= MaxClaims
	}
	return id, ok
}

// Digest returns a digest of everything that decisions about p depend on, but for the request.
func (p *Principal) Digest() [sha256.Size]byte {
	b := make([]byte, 0, 256)
	add := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	list := func(list []string) {
		b = binary.AppendUvarint(b, uint64(len(list)))
		for _, s := range list {
			add(s)
		}
	}
	for _, s := range []string{string(p.Kind), string(p.ID), string(p.Role), string(p.Namespace), p.Revision} {
		add(s)
	}
	if b = append(b, 0); p.Attenuated {
		b[len(b)-1] = 1
	}
	b = binary.AppendUvarint(b, uint64(len(p.EventTypes)))
	for _, t := range p.EventTypes {
		add(string(t))
	}
	list(p.Secrets)
	list(p.Reveals)
	list(p.Grants)
	b = binary.AppendUvarint(b, uint64(len(p.Invokes)))
	for _, f := range p.Invokes {
		add(string(f))
	}
	list(p.Groups)
	if c := p.Claims; c != nil {
		add("claims")
		for _, s := range []string{c.Issuer, c.Tenant, c.Strength} {
			add(s)
		}
		list(c.Groups)
		list(c.Roles)
		list(c.Methods)
		b = binary.AppendVarint(b, c.Time.UnixNano())
		for _, name := range slices.Sorted(maps.Keys(c.Others)) {
			add(name)
			list(c.Others[name])
		}
	}
	return sha256.Sum256(b)
}

func principalPrefix(k Kind) string {
	switch k {
	case KindToken:
		return "token:"
	case KindUser:
		return "user:"
	case KindService:
		return "service:"
	case KindFunction:
		return "function:"
	case KindEventType, KindNamespace, KindServer, KindGrant, KindSecret:
	}
	return ""
}
