package api

import "time"

// Secret describes a secret; its value is never in an answer.
type Secret struct {
	Name        string    `json:"name"`
	Description string    `json:"description,omitempty"`
	Created     time.Time `json:"created"`
	CreatedBy   string    `json:"created_by"`
	// Canary says that nobody has a reason to use it: each use is a finding.
	Canary bool `json:"canary,omitempty"`
	// Reference says where the value is when another store has it.
	Reference string `json:"reference,omitempty"`
	// Current, Previous and Pending are the numbers of versions; 0 is none.
	Current       int        `json:"current,omitempty"`
	Previous      int        `json:"previous,omitempty"`
	PreviousUntil *time.Time `json:"previous_until,omitempty"`
	Pending       int        `json:"pending,omitempty"`
	LastUsed      *time.Time `json:"last_used,omitempty"`
	// UsedBy are the functions whose grants name it.
	UsedBy   []string        `json:"used_by,omitempty"`
	Rotation *SecretRotation `json:"rotation,omitempty"`
}

// SecretList is the answer to a list of secrets.
type SecretList struct {
	Secrets []Secret `json:"secrets"`
}

// SecretVersion describes a version of a secret.
type SecretVersion struct {
	Version int    `json:"version"`
	State   string `json:"state"` // current, previous, pending, disabled, destroyed
	// Origin is what made it: set, rotation, decoy.
	Origin    string     `json:"origin"`
	Created   time.Time  `json:"created"`
	CreatedBy string     `json:"created_by,omitempty"`
	Size      int        `json:"size"` // in bytes
	Destroyed *time.Time `json:"destroyed,omitempty"`
}

// SecretVersionList is the answer to a list of versions, the newest first.
type SecretVersionList struct {
	Versions []SecretVersion `json:"versions"`
}

// SecretUse is a line of the access log of a secret: equal uses within a minute.
type SecretUse struct {
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	Count int64     `json:"count"`
	// Kind is what was done: applied (by the server, outside the sandbox), revealed (to the function), denied.
	Kind     string `json:"kind"`
	Version  int    `json:"version,omitempty"`
	Function string `json:"function"`
	Revision int    `json:"revision"`
	Grant    string `json:"grant,omitempty"`
	// EventID is the event that the last of them was for, and Principal who published it.
	EventID   string `json:"event_id,omitempty"`
	Principal string `json:"principal,omitempty"`
}

// SecretUseList is the access log of a secret, the newest first.
type SecretUseList struct {
	Uses []SecretUse `json:"uses"`
}

// SecretVersionRequest names a version; 0 is, where that is possible, all of them.
type SecretVersionRequest struct {
	Version int `json:"version"`
	// Grace is how long the version before stays usable, such as "1h".
	Grace string `json:"grace,omitempty"`
	// Force destroys what deployed functions use.
	Force bool `json:"force,omitempty"`
}

// SecretLinkRequest says where a secret is that another store has.
type SecretLinkRequest struct {
	Reference   string `json:"reference"`
	Description string `json:"description,omitempty"`
}

// SecretCanaryRequest says what a decoy looks like.
type SecretCanaryRequest struct {
	Like        string `json:"like,omitempty"`
	Description string `json:"description,omitempty"`
}

// SecretCanary is a new canary. Its decoy opens nothing; it is shown this once.
type SecretCanary struct {
	Secret Secret `json:"secret"`
	Decoy  string `json:"decoy"`
}

// SecretRotationRequest says how a secret is to be rotated.
type SecretRotationRequest struct {
	Function string `json:"function,omitempty"`
	// Creates has the function make the value; else the server does.
	Creates bool   `json:"creates,omitempty"`
	Every   string `json:"every,omitempty"`
	Grace   string `json:"grace,omitempty"`
	// Off ends the schedule, and Now begins a rotation.
	Off bool `json:"off,omitempty"`
	Now bool `json:"now,omitempty"`
}

// SecretRotation says how a secret is rotated, and what became of the last time.
type SecretRotation struct {
	Function string     `json:"function"`
	Creates  bool       `json:"creates,omitempty"`
	Every    string     `json:"every,omitempty"`
	Grace    string     `json:"grace"`
	Next     *time.Time `json:"next,omitempty"`
	// Step is what is being done, "" when no rotation is under way: create, set, test, finish.
	Step    string     `json:"step,omitempty"`
	Started *time.Time `json:"started,omitempty"`
	Ended   *time.Time `json:"ended,omitempty"`
	Error   string     `json:"error,omitempty"`
}
