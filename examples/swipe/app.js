// One video at a time to like or not; a list that follows the likes; a session that becomes decisions when its visitor signs in.
import { signedIn, visitor } from './config.js'

const PAGE = 10
const at = (id) => document.getElementById(id)

let client = visitor()
let known = false // whether somebody is signed in
let cards = []
// A visitor's decisions, which are stored in the database only when the visitor signs in.
let session = JSON.parse(localStorage.getItem('session')) ?? { liked: [], noped: [] }

async function ask(name, args) {
  const { data, error } = await client.rpc(name, args)
  if (error) throw error
  return data
}

// The next cards: for a user, videos not shown today; for a visitor, videos by the likes of the session, or popular ones.
async function nextCards() {
  if (known) return ask('next_videos', { limit: PAGE })
  const exclude = [...session.liked, ...session.noped]
  return session.liked.length
    ? ask('recommend_from', { ...session, limit: PAGE })
    : ask('popular_videos_now', { limit: PAGE, exclude })
}

async function showCard() {
  if (!cards.length) cards = await nextCards()
  at('card').textContent = cards.length ? cards[0].title : 'You have seen everything.'
}

async function decide(decision_type) {
  const video = cards.shift()
  if (!video) return
  if (known) {
    const { error } = await client.from('user_video_decisions').insert({ video_id: video.video_id, decision_type })
    if (error) throw error
  } else {
    session[decision_type === 'like' ? 'liked' : 'noped'].push(video.video_id)
    localStorage.setItem('session', JSON.stringify(session))
    cards = [] // the session has changed, and with it the recommendations
  }
  await Promise.all([showCard(), showList()])
}

function entry({ title, reason, because_title }) {
  const item = document.createElement('li')
  const why = document.createElement('small')
  why.textContent = because_title ? ` because you liked ${because_title}` : ` ${reason}`
  item.append(title, why)
  return item
}

let listed = []

// The best videos for the signed-in user, each with the like that adds most to its score.
async function showList(more = false) {
  if (!known) return at('list').replaceChildren()
  const rows = await ask('recommend_videos', { limit: PAGE, because: true, exclude: more ? listed : [] })
  listed = [...(more ? listed : []), ...rows.map((row) => row.video_id)]
  if (!more) at('list').replaceChildren()
  at('list').append(...rows.map(entry))
  at('more').hidden = rows.length < PAGE
}

async function signIn() {
  client = await signedIn()
  known = true
  await ask('claim_session', session)
  session = { liked: [], noped: [] }
  localStorage.removeItem('session')
  at('who').textContent = 'You are signed in.'
  cards = []
  await Promise.all([showCard(), showList()])
}

// One action after the other, so that two quick presses are two decisions; errors are shown.
let busy = Promise.resolve()
const inTurn = (work) => () => {
  busy = busy.then(work).then(() => (at('error').textContent = ''), (error) => (at('error').textContent = error.message))
}

at('like').onclick = inTurn(() => decide('like'))
at('nope').onclick = inTurn(() => decide('nope'))
at('more').onclick = inTurn(() => showList(true))
at('sign-in').onclick = inTurn(signIn)
addEventListener('keydown', ({ key }) => {
  if (key === 'ArrowRight') at('like').click()
  if (key === 'ArrowLeft') at('nope').click()
})
inTurn(showCard)()
