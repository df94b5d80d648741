// Package api is the contract of the HTTP API as data: the wire types that the server writes and
// the client reads. It has no behaviour.
//
// Fields may be added; a field never changes its meaning. Times are RFC 3339 in UTC, sizes are
// bytes, durations are Go duration strings such as "1.5s". Callers: httpapi (server), client, cli.
package api

import (
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Receipt says where an accepted event stands in the event log.
type Receipt struct {
	ID       string `json:"id"`
	Source   string `json:"source"`
	Position uint64 `json:"position"`
	// Duplicate is true when this (source, id) was accepted before, inside the duplicate window:
	// nothing was stored again and Position is that of the first acceptance.
	Duplicate bool `json:"duplicate,omitempty"`
}

// Receipts is the body of a 202 answer to a publish request, in the order of the request's events.
type Receipts struct {
	Receipts []Receipt `json:"receipts"`
}

// Problem is an RFC 9457 problem document, the body of every error answer.
type Problem struct {
	Type      string       `json:"type"`
	Title     string       `json:"title"`
	Status    int          `json:"status"`
	Detail    string       `json:"detail,omitempty"`
	Instance  string       `json:"instance,omitempty"`
	Code      string       `json:"code"`
	Hint      string       `json:"hint,omitempty"`
	Reference string       `json:"reference,omitempty"`
	Errors    []FieldError `json:"errors,omitempty"`
	Policies  []string     `json:"policies,omitempty"`
}

// FieldError names one fault inside the request: by JSON pointer, or by file, line and column.
type FieldError struct {
	Pointer string `json:"pointer,omitempty"`
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	// Source is the line the fault is in, and Length how many characters of it are marked.
	Source string `json:"source,omitempty"`
	Length int    `json:"length,omitempty"`
	Detail string `json:"detail"`
}

// EventState is where an accepted event stands: pending, done or dead.
type EventState string

// The states of an event. An event is done when every delivery of it is done (or none matched),
// dead when at least one delivery is a dead letter and none is pending.
const (
	StatePending EventState = "pending"
	StateDone    EventState = "done"
	StateDead    EventState = "dead"
)

// Event is one accepted event and its way: what happened to it, and when.
type Event struct {
	ID              string            `json:"id"`
	Source          string            `json:"source"`
	Type            string            `json:"type"`
	Subject         string            `json:"subject,omitempty"`
	Time            *time.Time        `json:"time,omitempty"`
	DataContentType string            `json:"datacontenttype,omitempty"`
	Extensions      map[string]string `json:"extensions,omitempty"`
	Size            int               `json:"size"`
	Position        uint64            `json:"position"`
	AcceptedAt      time.Time         `json:"accepted_at"`
	Principal       string            `json:"principal"`
	// Behind is who is behind an event that a function emitted.
	Behind     *Behind    `json:"behind,omitempty"`
	State      EventState `json:"state"`
	Deliveries []Delivery `json:"deliveries,omitempty"`
	// Data is present only when the caller asked for it and may read it: JSON data as it was
	// accepted, anything else in DataBase64.
	Data       jsontext.Value `json:"data,omitempty"`
	DataBase64 []byte         `json:"data_base64,omitempty"`
}

// Behind is who is behind an event that a function emitted: who sent the first event of the chain, and the functions since then,
// the one that emitted this event last.
type Behind struct {
	// Principal is empty when it is not known.
	Principal string             `json:"principal,omitempty"`
	Functions []FunctionRevision `json:"functions,omitempty"`
}

// FunctionRevision names a revision of a function.
type FunctionRevision struct {
	Name     string `json:"name"`
	Revision int    `json:"revision"`
}

// Delivery is the handing of one event to one function through one subscription.
type Delivery struct {
	Subscription string     `json:"subscription,omitempty"`
	Function     string     `json:"function"`
	Revision     int        `json:"revision,omitzero"`
	State        EventState `json:"state"`
	Attempts     []Attempt  `json:"attempts,omitempty"`
	// NextAttempt is when a failed delivery is tried again.
	NextAttempt *time.Time `json:"next_attempt,omitempty"`
}

// Attempt is one try at a delivery.
type Attempt struct {
	Number   int       `json:"number"`
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished"`
	// Code and Error are empty when the attempt succeeded.
	Code  string `json:"code,omitempty"`
	Error string `json:"error,omitempty"`
	// Emitted are the ids of the events the function returned, accepted in turn.
	Emitted []string `json:"emitted,omitempty"`
}

// EventList is one page of events, newest first.
type EventList struct {
	Events []Event `json:"events"`
	Cursor string  `json:"cursor,omitempty"`
}

// DeadLetter is a delivery that used up its attempts.
type DeadLetter struct {
	ID           string    `json:"id"`
	EventID      string    `json:"event_id"`
	Source       string    `json:"source"`
	Type         string    `json:"type"`
	Subscription string    `json:"subscription,omitempty"`
	Function     string    `json:"function"`
	Reason       string    `json:"reason"`
	Attempts     int       `json:"attempts"`
	FirstError   string    `json:"first_error"`
	LastError    string    `json:"last_error"`
	FirstAttempt time.Time `json:"first_attempt"`
	DeadAt       time.Time `json:"dead_at"`
	Position     uint64    `json:"position"`
	// Event is present in the answer to a get, not in a list.
	Event *Event `json:"event,omitempty"`
}

// DeadLetterList is one page of dead letters, newest first.
type DeadLetterList struct {
	DeadLetters []DeadLetter `json:"dead_letters"`
	Cursor      string       `json:"cursor,omitempty"`
}

// DeadLetterSelection names the dead letters an action is for: by id, or by subscription, or all.
// Exactly one of the three is set.
type DeadLetterSelection struct {
	IDs          []string `json:"ids,omitempty"`
	Subscription string   `json:"subscription,omitempty"`
	All          bool     `json:"all,omitempty"`
	DryRun       bool     `json:"dry_run,omitempty"`
}

// DeadLetterResult lists the dead letters an action was (or, dry, would be) done to.
type DeadLetterResult struct {
	IDs    []string `json:"ids"`
	DryRun bool     `json:"dry_run,omitempty"`
}

// Bundle is an app as it is sent to the server: the manifest's text and everything it names.
type Bundle struct {
	// Manifest is the text of app.toml, byte for byte.
	Manifest string `json:"manifest"`
	// Modules holds, by function name, what the function runs.
	Modules map[string]Module `json:"modules"`
	// Schemas holds, by the path the manifest gives, the JSON Schema texts.
	Schemas map[string]string `json:"schemas,omitempty"`
}

// ModuleKind says how Module.Code is to be run.
type ModuleKind string

// The kinds of module.
const (
	// ModuleScript is one bundled JavaScript file in ES module form.
	ModuleScript ModuleKind = "script"
	// ModuleWasm is a WebAssembly binary: a reactor or a WASI command.
	ModuleWasm ModuleKind = "wasm"
)

// Module is the code of one function.
type Module struct {
	Kind ModuleKind `json:"kind"`
	Code []byte     `json:"code"`
	// SourceMap is the source map (version 3) of a bundled script, so that errors name the
	// author's own file and line.
	SourceMap []byte `json:"source_map,omitempty"`
}

// Plan is what applying a bundle changes.
type Plan struct {
	App      string   `json:"app"`
	Revision int      `json:"revision"`
	Changes  []Change `json:"changes"`
	// Grants is what functions gain and lose, and what they have and do not use.
	Grants []GrantChange `json:"grants,omitempty"`
	// Crossings are what new and changed functions and subscriptions are for and a perimeter denies, or in dry-run would.
	Crossings []Crossing `json:"crossings,omitempty"`
	Applied   bool       `json:"applied"`
	// Unchecked are the grants whose statements the database could not be asked about.
	Unchecked []Unchecked `json:"unchecked,omitempty"`
	// Policies is what the app's policies change, of an app that has some.
	Policies *PolicyPlan `json:"policies,omitzero"`
	// NeedsApproval says that functions gain something, which somebody else has to approve in this namespace; Approval is what waits
	// for that, of an app that was applied.
	NeedsApproval bool      `json:"needs_approval,omitzero"`
	Approval      *Approval `json:"approval,omitzero"`
	// Supersedes is the approval of an apply before, which nobody can give any more because of this one.
	Supersedes string `json:"supersedes,omitempty"`
}

// DatabaseAccepted is what became of a database of functions that goes on with an older file.
type DatabaseAccepted struct {
	Name string `json:"name"`
	// Gone says that there was no file: the next use makes an empty database.
	Gone bool `json:"gone"`
	// Recorded is the change that was recorded last, and RecordedAt when; Found is the change that the file has come to.
	Recorded   uint64    `json:"recorded"`
	RecordedAt time.Time `json:"recorded_at"`
	Found      uint64    `json:"found"`
}

// Unchecked is a grant of which it is not known whether what it reaches takes what the manifest fixes.
type Unchecked struct {
	Function string `json:"function"`
	Grant    string `json:"grant"`
	// Code, Detail and Hint are those of the problem that was in the way.
	Code   string `json:"code"`
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
}

// GrantChange is what becomes of one grant of a function.
type GrantChange struct {
	Function string `json:"function"`
	Grant    string `json:"grant"`
	Kind     string `json:"kind"`
	// Change is "new", "gone", "widened", "narrowed", "changed" (it gains and loses), "limits" (only its limits differ), or
	// "unused" (it stays, and was not used for long).
	Change string   `json:"change"`
	Gains  []string `json:"gains,omitempty"`
	Loses  []string `json:"loses,omitempty"`
	// RevealsSecret says that the function gets the value of a secret.
	RevealsSecret bool `json:"reveals_secret,omitzero"`
	// UnusedDays is for how many days it was not used, of one that is unused.
	UnusedDays int `json:"unused_days,omitzero"`
}

// ChangeAction is what happens to one resource of an app.
type ChangeAction string

// The actions of a change.
const (
	ActionCreate ChangeAction = "create"
	ActionUpdate ChangeAction = "update"
	ActionDelete ChangeAction = "delete"
)

// Change is one line of a plan.
type Change struct {
	Action ChangeAction `json:"action"`
	// Kind is "function", "subscription" or "event type".
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Detail says in words what differs, empty for create and delete.
	Detail string `json:"detail,omitempty"`
}

// Function is a deployed function.
type Function struct {
	Name     string `json:"name"`
	App      string `json:"app"`
	Revision int    `json:"revision"`
	Kind     string `json:"kind"` // "javascript", "reactor" or "command"
	Digest   string `json:"digest"`
	Memory   int64  `json:"memory_bytes"`
	Timeout  string `json:"timeout"`
	// MinInstances is how many instances wait for events however long none comes.
	MinInstances int       `json:"min_instances"`
	Publishes    []string  `json:"publishes,omitempty"`
	Grants       []Grant   `json:"grants,omitempty"`
	Deployed     time.Time `json:"deployed"`
	By           string    `json:"deployed_by"`
	// Approval is of what it gained last, when somebody had to approve that.
	Approval *FunctionApproval `json:"approval,omitzero"`
}

// Grant is a named authority of a function. The limits of a publish grant are 0: it has none.
type Grant struct {
	Name string `json:"name"`
	Kind string `json:"kind"` // "publish", "http", "sql", "kv", "blob", "secret", "invoke" or "identity"
	// Reaches are the single things that it may reach, in words, each of which is gained or lost as a whole.
	Reaches      []string `json:"reaches"`
	Rate         int      `json:"rate"` // uses in a second
	Concurrency  int      `json:"concurrency"`
	Timeout      string   `json:"timeout"`
	RequestBytes int64    `json:"request_bytes"`
	ReplyBytes   int64    `json:"reply_bytes"`
	// InvocationBytes is the most that one invocation sends and receives, on all its uses together.
	InvocationBytes int64 `json:"invocation_bytes"`
}

// FunctionList is all functions of a namespace by name.
type FunctionList struct {
	Functions []Function `json:"functions"`
}

// Usage is what functions used in a period. Hours (UTC) are counted whole.
type Usage struct {
	Since time.Time   `json:"since"`
	Until time.Time   `json:"until"`
	Lines []UsageLine `json:"lines"` // most processor time first
	Total UsageLine   `json:"total"`
	// Grants are those that were used. They are counted by whole days (UTC).
	Grants []GrantUsage `json:"grants"`
}

// GrantUsage is what a function used one of its grants for. Durations are seconds, sizes bytes.
type GrantUsage struct {
	Function string `json:"function"`
	Grant    string `json:"grant"`
	Kind     string `json:"kind"`
	Uses     int64  `json:"uses"`
	Failed   int64  `json:"failed"` // with those that were denied
	Denied   int64  `json:"denied"`
	BytesIn  int64  `json:"bytes_in"`  // of requests
	BytesOut int64  `json:"bytes_out"` // of replies
	// P50 and P99 are exact to a factor of 2.
	P50      float64   `json:"p50_seconds"`
	P99      float64   `json:"p99_seconds"`
	LastUsed time.Time `json:"last_used"`
}

// UsageLine is one line of a statement of usage. Durations are seconds, sizes bytes.
type UsageLine struct {
	Function  string `json:"function,omitempty"`
	Revision  int    `json:"revision,omitzero"`
	Principal string `json:"principal,omitempty"` // that published the event

	Invocations int64 `json:"invocations"`
	Done        int64 `json:"done"`
	Failed      int64 `json:"failed"` // and attempted again
	Dead        int64 `json:"dead"`
	Cold        int64 `json:"cold"` // for which an instance was made

	Wall       float64 `json:"wall_seconds"`
	CPU        float64 `json:"cpu_seconds"`
	GBSeconds  float64 `json:"gb_seconds"` // peak memory of each invocation times its time; 1 GB is 10^9 bytes
	MemoryPeak int64   `json:"memory_peak_bytes"`
	BytesIn    int64   `json:"bytes_in"`
	BytesOut   int64   `json:"bytes_out"`
	// P50, P95 and P99 are exact to a factor of 2.
	P50 float64 `json:"p50_seconds"`
	P95 float64 `json:"p95_seconds"`
	P99 float64 `json:"p99_seconds"`
}

// DecisionList is what the gate decided in a period. How often is counted by days (UTC).
type DecisionList struct {
	Since     time.Time  `json:"since"`
	Until     time.Time  `json:"until"`
	Decisions []Decision `json:"decisions"` // what was asked last comes first
	// More says that there are others, beyond the limit.
	More bool `json:"more,omitzero"`
}

// Decision is a question that the gate was asked, its answer, and how often it was asked.
type Decision struct {
	Principal string `json:"principal"`
	Role      string `json:"role,omitempty"`
	Action    string `json:"action"`
	Kind      string `json:"resource_kind"` // EventType, Function, Namespace or Server
	Resource  string `json:"resource"`
	Allowed   bool   `json:"allowed"`
	// Policies are the determining policies; empty when none permits.
	Policies []string `json:"policies"`
	// Bridges are those of perimeters that it went by, and DryRun the perimeters in dry-run that would have denied it.
	Bridges []string  `json:"bridges,omitempty"`
	DryRun  []string  `json:"dry_run,omitempty"`
	Count   int64     `json:"count"`
	Last    time.Time `json:"last"`
}

// Policy is a policy that is in force.
type Policy struct {
	ID        string `json:"id"`
	Effect    string `json:"effect"` // "permit" or "forbid"
	BuiltIn   bool   `json:"built_in,omitzero"`
	Namespace string `json:"namespace,omitempty"` // empty: of the whole server
	File      string `json:"file,omitempty"`
	Line      int    `json:"line,omitzero"`
	Text      string `json:"text"` // in Cedar
}

// PolicyList is the policies that decide about what is in a namespace, or about the server.
type PolicyList struct {
	Policies []Policy `json:"policies"`
}

// PolicyFiles are all files of policies of an app, by their names.
type PolicyFiles struct {
	Files map[string]string `json:"files"`
}

// PolicyPlan is what applying policies changes, or would change.
type PolicyPlan struct {
	Created []string `json:"created"`
	Updated []string `json:"updated"`
	Deleted []string `json:"deleted"`
	// Access is what becomes allowed or denied, for everybody and everything that is known.
	Access     []AccessChange `json:"access"`
	AccessMore bool           `json:"access_more,omitzero"` // there are others
	// Replayed is how many requests of the last 30 days were decided with both, and Replay those that differ.
	Replayed   int64              `json:"replayed"`
	Replay     []ReplayDifference `json:"replay"`
	ReplayMore bool               `json:"replay_more,omitzero"`
	// Crossings are what apps are for and a new or changed perimeter denies, or in dry-run would.
	Crossings     []Crossing `json:"crossings,omitempty"`
	CrossingsMore bool       `json:"crossings_more,omitzero"`
	Applied       bool       `json:"applied"`
}

// AccessChange is something that a principal may do with other policies and not with these, or the other way round.
type AccessChange struct {
	Principal string   `json:"principal"`
	Action    string   `json:"action"`
	Resource  string   `json:"resource"`
	Allowed   bool     `json:"allowed"` // from then on
	Policies  []string `json:"policies"`
	// Assumed are policies whose conditions on the circumstances were left out of account.
	Assumed []string `json:"assumed"`
}

// ReplayDifference is a request that was made, and that would be decided otherwise.
type ReplayDifference struct {
	Principal string    `json:"principal"`
	Action    string    `json:"action"`
	Resource  string    `json:"resource"`
	Allowed   bool      `json:"allowed"` // from then on
	Policies  []string  `json:"policies"`
	Count     int64     `json:"count"`
	Last      time.Time `json:"last"`
}

// PolicyExplanation says how a question is decided, and what each policy that is about it comes to.
type PolicyExplanation struct {
	Principal string   `json:"principal"`
	Action    string   `json:"action"`
	Resource  string   `json:"resource"`
	Allowed   bool     `json:"allowed"`
	Policies  []string `json:"policies"` // the determining ones
	// OnBehalf says that a function is permitted this only as far as its caller is, and the answer is about both.
	OnBehalf bool          `json:"on_behalf,omitempty"`
	Matched  []PolicyMatch `json:"matched"`
	// Bridges are those that it crosses the borders of perimeters by, and DryRun the perimeters in dry-run that would deny it.
	Bridges []string `json:"bridges,omitempty"`
	DryRun  []string `json:"dry_run,omitempty"`
	// Perimeters are those whose border it crosses.
	Perimeters []PerimeterVerdict `json:"perimeters,omitempty"`
	// Approval is of what the function gained last that the question is about, when somebody had to approve that.
	Approval *FunctionApproval `json:"approval,omitzero"`
}

// PerimeterVerdict says what one perimeter makes of a question that crosses its border.
type PerimeterVerdict struct {
	ID        string `json:"id"`
	Mode      string `json:"mode"`      // "enforce" or "dry-run"
	Direction string `json:"direction"` // "in" or "out"
	Denied    bool   `json:"denied"`    // in dry-run: it would
	// To is what it leads to: of a grant each thing that it reaches has a verdict of its own.
	To string `json:"to"`
	// Bridge is the bridge that is taken, and Bridges are all that lead to the resource.
	Bridge  string          `json:"bridge,omitempty"`
	Bridges []BridgeVerdict `json:"bridges,omitempty"`
	// Levels are the access levels that it demands of who comes in.
	Levels []LevelVerdict `json:"levels,omitempty"`
	// Needed is a bridge for exactly this, when there is none.
	Needed *Bridge `json:"needed,omitempty"`
}

// BridgeVerdict says why a bridge is taken or not.
type BridgeVerdict struct {
	ID        string           `json:"id"`
	From      bool             `json:"from"`   // it begins there
	Action    bool             `json:"action"` // it is for the action
	Condition *PolicyCondition `json:"condition,omitempty"`
}

// LevelVerdict says whether an access level is met, and by the keys of the level what is lacking.
type LevelVerdict struct {
	Name  string   `json:"name"`
	Holds bool     `json:"holds"`
	Lacks []string `json:"lacks,omitempty"`
}

// Bridge lets something cross the border of a perimeter.
type Bridge struct {
	Name    string   `json:"name,omitempty"`
	From    []string `json:"from"`
	To      []string `json:"to"`
	Actions []string `json:"actions"`
	When    string   `json:"when,omitempty"`
}

// Level is an access level that a perimeter demands.
type Level struct {
	Name     string   `json:"name"`
	IP       []string `json:"ip,omitempty"`
	MTLS     bool     `json:"mtls,omitzero"`
	Hours    []string `json:"hours,omitempty"`
	Strength []string `json:"strength,omitempty"`
	Methods  []string `json:"methods,omitempty"`
}

// Perimeter is a named set of members with a border.
type Perimeter struct {
	ID          string   `json:"id"`
	Name        string   `json:"name"`
	Namespace   string   `json:"namespace,omitempty"` // whose it is; absent for those of the server
	Description string   `json:"description,omitempty"`
	Mode        string   `json:"mode"` // "enforce" or "dry-run"
	EventTypes  []string `json:"event_types"`
	Functions   []string `json:"functions"`
	Secrets     []string `json:"secrets,omitempty"`
	Hosts       []string `json:"hosts,omitempty"`
	Audiences   []string `json:"audiences,omitempty"`
	KV          []string `json:"kv,omitempty"`
	SQLite      []string `json:"sqlite,omitempty"`
	Blob        []string `json:"blob,omitempty"`
	Levels      []Level  `json:"levels"`
	Bridges     []Bridge `json:"bridges"`
	File        string   `json:"file"`
	Line        int      `json:"line"`
}

// PerimeterList is the perimeters of a namespace, or those of the server.
type PerimeterList struct {
	Perimeters []Perimeter `json:"perimeters"`
}

// PerimeterTest is what a perimeter denies, or in dry-run would deny: of what was asked in a period, and of what apps declare.
type PerimeterTest struct {
	ID    string    `json:"id"`
	Mode  string    `json:"mode"`
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	// Asked is what was asked and denied, and in dry-run would have been.
	Asked []Decision `json:"asked"`
	More  bool       `json:"more,omitzero"` // there are others
	// Declared are subscriptions and grants that cross its border without a bridge.
	Declared []Crossing `json:"declared"`
}

// Crossing is a way over a border that an app declares.
type Crossing struct {
	Perimeter string `json:"perimeter"`
	Mode      string `json:"mode"` // "enforce" or "dry-run"
	From      string `json:"from"`
	Action    string `json:"action"`
	Resource  string `json:"resource"` // of a grant what it reaches
	By        string `json:"by"`       // the subscription, or the grant and its function
	// Needed is a bridge that would do; absent when there is one, whose condition or level is not met.
	Needed *Bridge `json:"needed,omitempty"`
}

// PolicyMatch is a policy whose scope a question is in.
type PolicyMatch struct {
	Policy     Policy            `json:"policy"`
	Determined bool              `json:"determined"`
	Holds      bool              `json:"holds"` // all of its conditions do
	Error      string            `json:"error,omitempty"`
	Conditions []PolicyCondition `json:"conditions,omitempty"`
}

// PolicyCondition is a when or unless of a policy.
type PolicyCondition struct {
	Unless bool   `json:"unless,omitzero"`
	Text   string `json:"text"`
	Holds  bool   `json:"holds"`
	Error  string `json:"error,omitempty"`
}

// AccessList is what principals may do.
type AccessList struct {
	Access []Access `json:"access"`
}

// Access is something that a principal may do.
type Access struct {
	Principal string   `json:"principal"`
	Action    string   `json:"action"`
	Resource  string   `json:"resource"`
	Policies  []string `json:"policies"`
	// Assumed are policies whose conditions on the circumstances are taken to be as is needed.
	Assumed []string `json:"assumed"`
	// Via is what a principal comes by that is not the one asked about: "event_type:…" and "function:…" in turn.
	Via []string `json:"via,omitempty"`
}

// UnusedList is authority that nothing that was asked needed.
type UnusedList struct {
	Since    time.Time `json:"since"`
	Policies []Policy  `json:"policies"`
	// Grants are event types that a function's manifest or a token names, and that were not published.
	Grants []Access `json:"grants"`
	// Actions are what principals may do to something, and did to nothing.
	Actions []UnusedActions `json:"actions"`
}

// UnusedActions are what a principal may do to something, and did to nothing.
type UnusedActions struct {
	Principal string   `json:"principal"`
	Role      string   `json:"role,omitempty"`
	Actions   []string `json:"actions"`
}

// WildcardList is the permits that leave something open.
type WildcardList struct {
	Wildcards []Wildcard `json:"wildcards"`
}

// Wildcard is a permit that leaves something open: "principal", "action" or "resource".
type Wildcard struct {
	Policy Policy   `json:"policy"`
	Open   []string `json:"open"`
	// Unconditional says that it has no condition either.
	Unconditional bool `json:"unconditional"`
}

// PolicyProposal is tightened policies, and the proof that they deny nothing that was recorded as allowed.
type PolicyProposal struct {
	Since time.Time `json:"since"`
	Text  string    `json:"text"` // in Cedar, all of it; of a boundary, the forbids to add
	// Dropped are permits that nothing used, and Narrowed those that became narrower.
	Dropped  []string `json:"dropped"`
	Narrowed []string `json:"narrowed"`
	// Replayed is how many recorded questions were decided again, alike. Assumed were allowed in circumstances that are not recorded: each
	// permit of theirs has a form that is about them, under the same conditions. Skipped are not allowed any more.
	Replayed int `json:"replayed"`
	Assumed  int `json:"assumed"`
	Skipped  int `json:"skipped"`
}

// Subscription is a deployed subscription and how far it is.
type Subscription struct {
	Name     string `json:"name"`
	App      string `json:"app"`
	Function string `json:"function"`
	Filter   Filter `json:"filter"`
	When     string `json:"when,omitempty"`
	Retry    Retry  `json:"retry"`
	Paused   bool   `json:"paused"`
	Pending  int64  `json:"pending"`
	Done     int64  `json:"done"`
	Dead     int64  `json:"dead"`
}

// Filter is a predicate on attributes: each value is exact, "prefix*" or "*suffix"; empty is any.
type Filter struct {
	Type    string `json:"type,omitempty"`
	Source  string `json:"source,omitempty"`
	Subject string `json:"subject,omitempty"`
}

// Retry bounds the attempts at a delivery.
type Retry struct {
	Attempts   int    `json:"attempts"`
	Backoff    string `json:"backoff"`
	MaxBackoff string `json:"max_backoff"`
	MaxAge     string `json:"max_age"`
}

// SubscriptionList is all subscriptions of a namespace by name.
type SubscriptionList struct {
	Subscriptions []Subscription `json:"subscriptions"`
}

// LogLine is one line of the function logs.
type LogLine struct {
	Time     time.Time `json:"time"`
	Function string    `json:"function"`
	Revision int       `json:"revision"`
	EventID  string    `json:"event_id"`
	Attempt  int       `json:"attempt"`
	Level    string    `json:"level"` // debug, info, warn, error
	Message  string    `json:"message"`
}

// TokenRequest asks for a new token.
type TokenRequest struct {
	Role       string   `json:"role"` // operator, developer, publisher, reader
	Namespace  string   `json:"namespace,omitempty"`
	EventTypes []string `json:"event_types,omitempty"`
	// ExpiresIn is a Go duration string; empty takes the server's default of 90 days.
	ExpiresIn   string `json:"expires_in,omitempty"`
	Description string `json:"description,omitempty"`
}

// Token is a token as the server knows it: never its secret.
type Token struct {
	ID          string     `json:"id"`
	Role        string     `json:"role"`
	Namespace   string     `json:"namespace,omitempty"`
	EventTypes  []string   `json:"event_types,omitempty"`
	Description string     `json:"description,omitempty"`
	Created     time.Time  `json:"created"`
	CreatedBy   string     `json:"created_by,omitempty"`
	Expires     time.Time  `json:"expires"`
	Revoked     *time.Time `json:"revoked,omitempty"`
}

// NewToken is the answer to a TokenRequest: the one time the token's text is shown.
type NewToken struct {
	Token
	Text string `json:"token"`
}

// TokenList is all tokens the caller may see.
type TokenList struct {
	Tokens []Token `json:"tokens"`
}

// Issuer is the issuer of identity tokens for functions.
type Issuer struct {
	URL  string      `json:"url,omitempty"` // without one, functions get no tokens
	Keys []IssuerKey `json:"keys"`          // the oldest first
	// Revoked are the ids of the keys that this request ended.
	Revoked []string `json:"revoked,omitempty"`
}

// IssuerRotation asks for a new key of the issuer.
type IssuerRotation struct {
	// RevokeOld ends all keys that there are, at once.
	RevokeOld bool `json:"revoke_old,omitempty"`
}

// IssuerKey is a key that the issuer publishes.
type IssuerKey struct {
	ID      string     `json:"id"`
	State   string     `json:"state"` // "next", "signs" or "expires"
	Created time.Time  `json:"created"`
	Until   *time.Time `json:"until,omitempty"`
}

// Status is the state of the server and of the namespaces the caller may see.
type Status struct {
	Version  string      `json:"version"`
	Mode     string      `json:"mode"` // "dev" or "server"
	Started  time.Time   `json:"started"`
	Ready    bool        `json:"ready"`
	Reason   string      `json:"reason,omitempty"` // why not ready
	DataDir  string      `json:"data_dir,omitempty"`
	DiskFree int64       `json:"disk_free_bytes"`
	Resident int64       `json:"resident_bytes"`
	Cells    *CellStatus `json:"cells,omitempty"`
	// Issuers are those whose tokens are accepted, and RevocationLists those of the CAs of callers.
	Issuers         []IssuerStatus     `json:"issuers,omitempty"`
	RevocationLists []RevocationStatus `json:"revocation_lists,omitempty"`
	Namespaces      []NamespaceStatus  `json:"namespaces"`
}

// IssuerStatus says how fresh the keys are that tokens of an issuer are checked with.
type IssuerStatus struct {
	URL       string    `json:"url"`
	Keys      int       `json:"keys"`
	Refreshed time.Time `json:"refreshed,omitzero"` // absent: never since the server began
	Failures  int64     `json:"refresh_failures"`   // since the server began
}

// RevocationStatus says how fresh the revocation lists of a CA of callers are.
type RevocationStatus struct {
	Authority string    `json:"authority"`
	Revoked   int       `json:"revoked"` // certificates
	Issued    time.Time `json:"issued"`  // the oldest of its lists
	// NextUpdate is until when they hold: after it no certificate of the CA is accepted.
	NextUpdate time.Time `json:"next_update"`
	Failures   int64     `json:"read_failures"` // since the server began
}

// CellStatus says where functions run.
type CellStatus struct {
	// SecondWall is "on" or "required" when they run in worker processes, "off" when in the server's own.
	SecondWall string `json:"second_wall"`
	// Worker is the process id of the worker, 0 while there is none.
	Worker int `json:"worker,omitempty"`
	// HeavyWorker is that of the worker of functions that compute for long, 0 while none is needed.
	HeavyWorker int `json:"heavy_worker,omitempty"`
	// Lost counts the workers that ended by a fault.
	Lost int64 `json:"lost_workers"`
	// Walls are those around a worker.
	Walls []Wall `json:"walls,omitempty"`
	// Reset is how the memory of a function is put back after an event: "tracked", "copy-on-write" or
	// "copy". ResetWhy says why it is not done better; it is empty when it is "tracked".
	Reset    string `json:"reset"`
	ResetWhy string `json:"reset_why,omitempty"`
}

// Wall is one of the walls around a worker process.
type Wall struct {
	Name   string `json:"name"`
	Stands bool   `json:"stands"`
	// Detail says what it holds, or why it does not stand.
	Detail string `json:"detail"`
}

// NamespaceStatus is the balance of one namespace: Accepted = Done + Dead + Pending at any moment,
// counted in events.
type NamespaceStatus struct {
	Name          string `json:"name"`
	Accepted      int64  `json:"accepted"`
	Done          int64  `json:"done"`
	Dead          int64  `json:"dead"`
	Pending       int64  `json:"pending"`
	FirstPosition uint64 `json:"first_position"`
	LastPosition  uint64 `json:"last_position"`
	StoredBytes   int64  `json:"stored_bytes"`
	Functions     int    `json:"functions"`
	Subscriptions int    `json:"subscriptions"`
	DeadLetters   int64  `json:"dead_letters"`
	// Quotas are those of the namespace, by name, and Use what of each is used; there is no use of a rate.
	Quotas map[string]int64 `json:"quotas,omitempty"`
	Use    map[string]int64 `json:"use,omitempty"`
	// Stored is what the stored bytes of Use consist of: "events", "blobs", "kv" and "sqlite".
	Stored map[string]int64 `json:"stored,omitempty"`
}

// Namespace is a namespace: who administers it, and what it may use.
type Namespace struct {
	Name string `json:"name"`
	// State is "active", or "deleting" when its deletion was begun and is not over.
	State string `json:"state"`
	// Owners are the ids of principals.
	Owners []string `json:"owners"`
	// Policies is what its policies began with: "roles", or "none".
	Policies string `json:"policies"`
	// Approvals is "gains" when a second principal has to approve what functions gain, or "none".
	Approvals string `json:"approvals"`
	// Quotas are by name; one that is not there does not bound. Use is what of each could be used, bounded or not.
	Quotas map[string]int64 `json:"quotas"`
	Use    map[string]int64 `json:"use,omitempty"`
	// Stored is what the stored bytes of Use consist of: "events", "blobs", "kv" and "sqlite".
	Stored    map[string]int64 `json:"stored,omitempty"`
	Created   time.Time        `json:"created"`
	CreatedBy string           `json:"created_by"`
}

// NamespaceList is all namespaces that the caller may see.
type NamespaceList struct {
	Namespaces []Namespace `json:"namespaces"`
}

// NamespaceRequest asks for a namespace. Policies is "roles" when it is empty, and Approvals "none".
type NamespaceRequest struct {
	Name      string           `json:"name"`
	Owners    []string         `json:"owners,omitempty"`
	Policies  string           `json:"policies,omitempty"`
	Approvals string           `json:"approvals,omitempty"`
	Quotas    map[string]int64 `json:"quotas,omitempty"`
}

// NamespaceUpdate changes a namespace: what is absent stays. A quota of 0 ends it.
type NamespaceUpdate struct {
	Owners    *[]string        `json:"owners,omitempty"`
	Policies  string           `json:"policies,omitempty"`
	Approvals string           `json:"approvals,omitempty"`
	Quotas    map[string]int64 `json:"quotas,omitempty"`
}

// NamespaceDeleted is the last balance of a namespace that was deleted: Accepted = Done + Dead + Pending. Pending events are
// those that were given up with it.
type NamespaceDeleted struct {
	Name     string `json:"name"`
	Accepted int64  `json:"accepted"`
	Done     int64  `json:"done"`
	Dead     int64  `json:"dead"`
	Pending  int64  `json:"pending"`
}

// Ready is the content of the file that --ready-file names.
type Ready struct {
	URL       string `json:"url"`
	CAFile    string `json:"ca_file"`
	TokenFile string `json:"token_file"`
}
