module lighter.test/daemon

go 1.19
