module {{snake}}

go 1.24
