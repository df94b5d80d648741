package sourcemap_test

import (
	"testing"

	"sallyport/internal/sourcemap"
)

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		``, `[]`, `{"version":2}`, `{"version":3,"mappings":"!"}`, `{"version":3,"mappings":"g"}`, `{"version":3,"mappings":"D"}`,
		`{"version":3,"mappings":"AAAAAA"}`, `{"version":3,"mappings":"ggggggggggggggB"}`,
	} {
		if _, err := sourcemap.Parse([]byte(text)); err == nil {
			t.Errorf("Parse(%s) = nil; want an error", text)
		}
	}
}
