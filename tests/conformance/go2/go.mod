// Marks the root of the module. What is required, and pinned, depends on containerd's version:
// tests/support/go/go2 chooses containerd-VERSION.mod and its .sum.
module lighter.test/conformance

go 1.26
