module taxi

go 1.24
