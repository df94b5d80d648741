package cell_test

import "testing"

// TestHostCallsNest has scripts call the host out of what the host makes the script's engine do:
// the engine asks the script for the text or the number of a value, and the script calls the host
// again. Two runs of one function on one native stack would end the process, or worse.
func TestHostCallsNest(t *testing.T) {
	t.Parallel()
	const hijackedMap = `Array.prototype.map = () => ({ join: () => ({ toString() { if (n++ < most) console.log("inner"); return "outer" } }) });`
	for name, body := range map[string]string{
		"text of a line": hijackedMap + `console.log("x"); console.log("y")`,
		"number of bytes": `class Bytes extends Uint8Array { get byteLength() { return { valueOf() { if (n++ < most) crypto.getRandomValues(new Bytes(4)); return 4 } } } }
			crypto.getRandomValues(new Bytes(4))`,
		"both": hijackedMap + `class Bytes extends Uint8Array { get byteLength() { return { valueOf() { console.log("z"); return 4 } } } }
			crypto.getRandomValues(new Bytes(4)); console.log("x")`,
		"rejections between": `Array.prototype.map = () => ({ join: () => ({ toString() { Promise.reject(1).catch(() => {}); if (n++ < most) console.log("inner"); return "outer" } }) });
			console.log("x")`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, most := range []string{"6", "1e9"} {
				f := load(t, js(`let n = 0; const most = `+most+`; export default () => {`+body+`; return "alive" }`), limitsWith(soon))
				for range 3 {
					result, _, err := invoke(t, f, `1`)
					switch {
					case err != nil: // it never ends, or the host does not take what is no text
						wantKnown(t, err)
					case string(result.Reply) != `"alive"`:
						t.Errorf("most %s: reply = %s", most, result.Reply)
					}
				}
			}
		})
	}
}
