package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sallyport/internal/ident"
)

// Perimeters. A perimeter is a named set of event types, functions, secrets, and what grants reach: hosts, audiences of
// identity tokens, and where data is kept. Whatever is done, delivered or read has two
// ends: who does it, or the event that is delivered, and what it is done to. When one end is inside a perimeter and
// the other is not, its border is crossed, and that is forbidden, whatever policies and roles permit, unless a bridge
// of that perimeter names both ends and the action. Only functions can be inside: tokens, users and services are
// outside of every perimeter, so that a stolen credential gets nobody in.
//
// A perimeter only ever forbids. Its bridges lift what it forbids itself, and nothing else.

// Limits of perimeters. A server parses what others send, and looks at perimeters for every request.
const (
	// MaxPerimeters bounds the perimeters of a namespace, and those of the server.
	MaxPerimeters = 100
	// MaxMembers bounds the members of a perimeter of each kind.
	MaxMembers = 1000
	// MaxBridges bounds the bridges of a perimeter.
	MaxBridges = 100
	// MaxEnds bounds where one bridge comes from, and where it leads: each is compared for every crossing.
	MaxEnds = 100
	// MaxLevels bounds the access levels of a file.
	MaxLevels = 100
	// MaxRequired bounds the levels that one perimeter demands.
	MaxRequired = 10
	// MaxLevelValues bounds each list of a level: ranges, hours, strengths and methods.
	MaxLevelValues = 100
	// MaxConditionBytes and MaxConditionTokens bound the condition of a bridge: it is evaluated for every crossing.
	MaxConditionBytes  = 4096
	MaxConditionTokens = 512
	// MaxDescription bounds the description of a perimeter, in bytes.
	MaxDescription = 1000
)

// Deliver is what a bridge calls the delivery of an event to a function. It is no action of policies: nobody does it.
const Deliver Action = "deliver"

// Mode says what a perimeter does about a crossing that no bridge allows.
type Mode uint8

// The modes. The zero Mode forbids.
const (
	Enforce Mode = iota
	DryRun       // changes no decision, and says what it would have denied
)

// String returns the mode as it stands in a file.
func (m Mode) String() string {
	if m == DryRun {
		return "dry-run"
	}
	return "enforce"
}

// PerimeterFile is perimeters and the levels that they demand, of a namespace or of the whole server.
// manifest.ParsePerimeters reads it from a text.
type PerimeterFile struct {
	Name string // for messages
	// Namespace is whose perimeters these are; "" is the whole server. In a perimeter of a namespace all members are those of the
	// namespace, and named without it; in one of the server they are "NAMESPACE/NAME". Hosts and audiences are in no
	// namespace: in a perimeter of one, they are so as far as its functions reach them.
	Namespace  ident.Namespace
	Levels     []Level
	Perimeters []Perimeter
}

// Perimeter is a named set of members with a border.
type Perimeter struct {
	Name        string
	Namespace   ident.Namespace // set from the file
	Description string
	Mode        Mode
	// The members: names, or the beginnings of names with a "*" after them. Hosts are names or addresses with all of their
	// ports, "*.example.org" for all names below that one, or "*"; Audiences are those of identity tokens; KV, SQLite and
	// Blob are the buckets and databases of the namespace.
	EventTypes, Functions, Secrets, Hosts, Audiences, KV, SQLite, Blob []string
	// Require are the levels that whoever comes from outside MUST meet, all of them, beside having a bridge. A
	// function outside has no address, certificate or claims: it meets none that ask for those.
	Require []string
	Bridges []Bridge
	// File and Line are where it stands.
	File string
	Line int
}

// Bridge lets something cross the border of a perimeter, in or out.
type Bridge struct {
	Name string
	// From are principals, "user:ann", "service:ci-*", "token:…", "group:ops" or "function:price"; of a delivery, event
	// types. A "*" at the end stands for whatever follows.
	From []string
	// To are "event_type:order.*", "function:price", "secret:stripe-key", "host:api.example.org", and so on for each kind of members.
	To []string
	// Actions are those of PerimeterActions.
	Actions []Action
	// When is an expression of Cedar over principal, resource and context that must hold; "" is none.
	When string
}

// String returns the bridge as it may stand in a file.
func (b *Bridge) String() string {
	return fmt.Sprintf("{ from = %q, to = %q, actions = %q }", b.From, b.To, b.Actions)
}

// Level is a named condition on where, when and how somebody comes. All that it asks for must be so.
type Level struct {
	Name string
	// IP are ranges, of which the client's address is in one.
	IP []string
	// MutualTLS asks for a certificate of the client.
	MutualTLS bool
	// Hours are spans in UTC, such as "mon-fri 07:00-19:00" or "06:00-24:00", of which one is now.
	Hours []string
	// Strength are values of the claim acr, of which the login has one.
	Strength []string
	// Methods are values of the claim amr; the login has all.
	Methods []string
}

// borderAction is an action that perimeters look at, and the kind of resource that it is about. An action on a whole
// namespace counts as one on all of its members of that kind, and the use of a grant as one on each thing that it reaches.
type borderAction struct {
	action Action
	kind   Kind
	// byFunctions says that functions do it too.
	byFunctions bool
}

// borderActions are all of them. Who deploys a function inside publishes inside, by way of its code; its logs and
// dead letters show events. Who sets or rotates a secret says where the functions inside go with it.
var borderActions = [...]borderAction{
	{Publish, KindEventType, true},
	{Invoke, KindFunction, true},
	{Deliver, KindFunction, false},
	{ReadEvents, KindEventType, false},
	{ReadEventData, KindEventType, false},
	{ReadDeadLetters, KindEventType, false},
	{ReadLogs, KindFunction, false},
	{Deploy, KindFunction, false},
	{UseGrant, KindGrant, true},
	{UseSecret, KindSecret, true},
	{RevealSecret, KindSecret, true},
	{SetSecret, KindSecret, false},
	{RotateSecret, KindSecret, false},
	{DestroySecret, KindSecret, false},
	{ReadSecretMetadata, KindSecret, false},
}

// about reports whether members of a kind are what the action is about.
func (a borderAction) about(k Kind) bool {
	if a.kind != KindGrant {
		return a.kind == k
	}
	i := slices.IndexFunc(memberKinds[:], func(m memberKind) bool { return m.kind == k })
	return i >= 0 && memberKinds[i].reached
}

func borderActionOf(a Action) (borderAction, bool) {
	for i := range borderActions {
		if borderActions[i].action == a {
			return borderActions[i], true
		}
	}
	return borderAction{}, false
}

// PerimeterActions returns the actions that cross borders: those that bridges name.
func PerimeterActions() []Action {
	var list []Action
	for _, a := range borderActions {
		list = append(list, a.action)
	}
	return list
}

// PerimeterID returns the name of a perimeter in decisions: "perimeter:NAME", or "perimeter:NAMESPACE/NAME". No policy
// has such a name.
func PerimeterID(ns ident.Namespace, name string) string {
	if ns == "" {
		return "perimeter:" + name
	}
	return "perimeter:" + string(ns) + "/" + name
}

// bridgeID returns the name of a bridge in decisions: "bridge:PERIMETER/NAME", with the namespace before, if any.
func bridgeID(perimeter, name string) string {
	return "bridge:" + strings.TrimPrefix(perimeter, "perimeter:") + "/" + name
}

// border is a perimeter of a Set.
type border struct {
	id     string
	info   Perimeter
	levels []*level
	// levelReads are the parts of the context that its levels read.
	levelReads ContextPart
	bridges    []*bridge
}

// bridge is a bridge of a Set.
type bridge struct {
	id       string
	info     Bridge
	border   *border
	from, to []pattern
	when     *condition // nil: none
}

func (b *bridge) allows(a Action) bool { return slices.Contains(b.info.Actions, a) }

// reads are the parts of the context that its condition reads.
func (b *bridge) reads() ContextPart {
	if b.when == nil {
		return 0
	}
	return b.when.reads
}

// level is an access level of a Set.
type level struct {
	info  Level
	ip    []netip.Prefix
	hours []window
	reads ContextPart
}
