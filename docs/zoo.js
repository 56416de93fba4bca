// Filters of the zoo: a family, a task and words. Without JavaScript the page shows every network.
(() => {
  const place = document.getElementById('zoo-filter')
  if (!place) return
  const rows = [...document.querySelectorAll('article table')].flatMap((table) => {
    let title = (table.closest('.md-typeset__scrollwrap') || table).previousElementSibling
    while (title && title.tagName !== 'H2') title = title.previousElementSibling
    const tasks = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === 'task')
    return [...table.tBodies[0].rows].map((row) => ({
      row, table, title, family: title.firstChild.textContent, tasks: row.cells[tasks].textContent.split(':')[0].split(', '),
    }))
  })
  const select = (label, values) => {
    const element = document.createElement('select')
    element.setAttribute('aria-label', label)
    element.append(new Option(label, ''), ...[...new Set(values)].map((value) => new Option(value)))
    return element
  }
  const family = select('every family', rows.map((entry) => entry.family))
  const task = select('every task', rows.flatMap((entry) => entry.tasks))
  const words = document.createElement('input')
  words.type = 'search'
  words.placeholder = words.ariaLabel = 'words, such as cifar10 or weights'
  const update = () => {
    const wanted = words.value.toLowerCase().split(/\s+/)
    for (const { row, table, title } of rows) table.hidden = title.hidden = true
    for (const entry of rows) {
      const text = entry.row.textContent.toLowerCase()
      entry.row.hidden = !(
        (!family.value || entry.family === family.value) &&
        (!task.value || entry.tasks.includes(task.value)) &&
        wanted.every((word) => text.includes(word))
      )
      if (!entry.row.hidden) entry.table.hidden = entry.title.hidden = false
    }
  }
  for (const element of [family, task, words]) {
    element.addEventListener('input', update)
    place.append(element)
  }
})()
