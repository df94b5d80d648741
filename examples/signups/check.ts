import * as v from "valibot";
import type { Handler } from "../../sdk/js";
import { homepage } from "./lib/homepage";

const Signup = v.object({
  name: v.pipe(v.string(), v.trim(), v.minLength(1, "a name is wanted"), v.maxLength(200)),
  email: v.pipe(v.string(), v.trim(), v.toLowerCase(), v.email("this is no e-mail address")),
  homepage: v.optional(v.pipe(v.string(), v.transform(homepage), v.string("this is no homepage"))),
  languages: v.optional(v.array(v.picklist(["en", "fi", "sv"], "en, fi or sv is wanted")), ["en"]),
});

// An id that is the same for the same person, and says nothing else.
async function idOf(email: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(email));
  return Array.from(new Uint8Array(digest).subarray(0, 12), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const check: Handler = async (event, ctx) => {
  const result = v.safeParse(Signup, event.data);
  if (!result.success) {
    const reasons = result.issues.map((issue) => ({ field: v.getDotPath(issue), message: issue.message }));
    ctx.log.warn("rejected", reasons);
    return [{ type: "signup.rejected", subject: event.subject, data: { reasons } }];
  }
  const id = await idOf(result.output.email);
  return [{ type: "signup.accepted", subject: id, data: { id, ...result.output } }];
};

export default check;
